import json

import pytest

from infra.errors import SettingError
from infra.local_environment import lineage_environment
from infra.settings import LineageSettings, load_settings
from schemas.handoff import Handoff
from schemas.sequences import SEQUENCES


def handoff(table, version, rows, uri="/w/shop"):
    return Handoff(table=table, uri=f"{uri}/{table}", version=version, rows=rows, schema_hash="h")


def test_a_stage_tells_the_tables_that_it_read_and_wrote_at_their_versions(airflow_home):
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.serde import Serde

    from dags.operators.lineage import LineageMixin

    operator = LineageMixin()
    operator.read = {"sequences": handoff("sequences", 7, 400)}
    operator.written = {"measurements": handoff("measurements", 3, 2400, "s3://lake/shop"), "x": handoff("x", 0, 1)}
    found = operator.get_openlineage_facets_on_complete(None)
    assert isinstance(found, OperatorLineage)
    (read,) = [json.loads(Serde.to_json(each)) for each in found.inputs]
    assert (read["namespace"], read["name"]) == ("file", "/w/shop/sequences")
    assert read["facets"]["version"]["datasetVersion"] == "7"
    assert read["inputFacets"]["inputStatistics"]["rowCount"] == 400
    assert [field["name"] for field in read["facets"]["schema"]["fields"]] == SEQUENCES.column_names()
    assert read["facets"]["documentation"]["description"] == SEQUENCES.description
    wrote = [json.loads(Serde.to_json(each)) for each in found.outputs]
    assert [(each["namespace"], each["name"]) for each in wrote] == [
        ("s3://lake", "shop/measurements"),
        ("file", "/w/shop/x"),
    ]
    assert wrote[0]["outputFacets"]["outputStatistics"]["rowCount"] == 2400
    assert set(wrote[1]["facets"]) == {"version"}, "a table without a contract"


def test_a_task_that_failed_tells_what_it_read_and_nothing_written(airflow_home):
    from airflow.providers.openlineage.extractors.base import DefaultExtractor

    from dags.chain import EVALUATE
    from dags.operators.ray_stage import RayStageOperator

    operator = RayStageOperator(task_id="evaluate", stage=EVALUATE)
    operator.read = {"sequences": handoff("sequences", 7, 400)}
    found = DefaultExtractor(operator).extract_on_failure(None)
    assert [each.name for each in found.inputs] == ["/w/shop/sequences"]
    assert found.outputs == []
    assert RayStageOperator(task_id="other", stage=EVALUATE).read == {}


def test_the_provider_stays_off_unless_a_transport_is_set(monkeypatch, tmp_path):
    assert lineage_environment(load_settings().lineage, tmp_path) == {}
    found = lineage_environment(LineageSettings(transport="file"), tmp_path)
    transport = json.loads(found["AIRFLOW__OPENLINEAGE__TRANSPORT"])
    assert transport == {"type": "file", "log_file_path": f"{tmp_path}/lineage/events.jsonl", "append": True}
    assert (tmp_path / "lineage").is_dir()
    http = LineageSettings(transport="http", url="http://marquez:5000", api_key="k", namespace="shop")
    found = lineage_environment(http, tmp_path)
    assert json.loads(found["AIRFLOW__OPENLINEAGE__TRANSPORT"])["auth"] == {"type": "api_key", "apiKey": "k"}
    assert found["AIRFLOW__OPENLINEAGE__NAMESPACE"] == "shop"
    monkeypatch.setenv("PENCHANT_LINEAGE__TRANSPORT", "http")
    with pytest.raises(SettingError, match="transport http needs url"):
        load_settings()
