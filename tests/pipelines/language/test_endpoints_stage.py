"""Six common endpoints through the whole stage preferences: calls, kept, quarantined, asked again."""

import sys

import pytest
from endpoints import ENDPOINTS, review_of
from scripted_server import chat_reply, error_reply, scripted_server
from test_stages import DAY, tables

from infra.settings import Settings, SparkSettings
from pipelines import preferences
from schemas.stage_request import StageRequest
from tests.pipelines.given_rows import frame_of

pytestmark = pytest.mark.nightly
FILTERED, SILENT, REFUSED = "tuned heads", "brass hoops", "iron pans"
BAD = "useless answers"


def wayward(endpoint, faults):
    """The endpoint with a filter, silence and refusals for one review each while `faults` holds."""

    def script(path, body, n):
        refused = endpoint.refusal(body)
        review = review_of(body)
        if refused or not faults:
            return refused or endpoint.script(path, body, n)
        if FILTERED in review:
            return error_reply(403, message="Forbidden")
        if SILENT in review:
            return chat_reply(None)
        if REFUSED in review:
            return chat_reply(None, refusal="I cannot help with that")
        return endpoint.script(path, body, n)

    return script


@pytest.fixture(scope="module")
def home(spark, jars_dir, tmp_path_factory):
    made = Settings(home=str(tmp_path_factory.mktemp("home")), spark=SparkSettings(jars_dir=jars_dir))
    for name, rows in tables().items():
        frame = frame_of(spark, name, rows)
        frame.write.format("delta").partitionBy("partition_date").save(made.table_uri("d", name))
    return made


@pytest.mark.parametrize("name", ENDPOINTS)
def test_the_whole_stage_at_an_endpoint(name, home, monkeypatch, capsys):
    endpoint = ENDPOINTS[name]
    monkeypatch.setenv("PENCHANT_HOME", home.home)
    monkeypatch.setenv("PENCHANT_SPARK__JARS_DIR", str(home.spark.jars_dir))
    monkeypatch.setenv("PENCHANT_LLM__MODEL", name)
    monkeypatch.setenv("PENCHANT_MLFLOW__TRACKING_URI", "http://127.0.0.1:9")
    told = []

    def run(what, faults=(), generation=0):
        with scripted_server(wayward(endpoint, faults)) as server:
            monkeypatch.setenv("PENCHANT_LLM__BASE_URL", server.base_url)
            request = StageRequest(
                stage="preferences",
                dataset="d",
                partition=str(DAY),
                generation=generation,
                overrides={"review_lines.max_users": 3},
            )
            counts = preferences.run(request).counts
        quarantined = sum(count for reason, count in counts.items() if reason.startswith("refused."))
        found = (len(server.calls), counts["lines"], quarantined, counts["llm_asked_again"])
        told.append(f"| {name} | {what} | {' | '.join(map(str, found))} |")
        return found

    # Twelve requests, one of them for two reviews; one line is refused for its price, whatever the endpoint does.
    # Silence and refusals are asked twice within a run, what the filter stops is not.
    assert run("as it is", faults=BAD) == (12 + 2 + endpoint.refusals, 9, 4, 0)
    assert run("mended, run again") == (3 + endpoint.refusals, 12, 1, 3)
    if name == next(iter(ENDPOINTS)):
        assert run("run again") == (0, 12, 1, 0)
        assert run("generation raised", generation=1) == (1 + endpoint.refusals, 12, 1, 1)
    with capsys.disabled():
        head = "| endpoint | run | calls | kept | quarantined | asked again |"
        sys.stdout.write("\n".join(("", head, *told, "")))
