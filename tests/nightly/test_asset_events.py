"""Events of tables in Airflow's own database: what a DAG that is scheduled on a table is started by."""

import json
import subprocess
import sys

from infra.local_environment import Ports, local_environment
from infra.settings import REPOSITORY

DAGS = '''
from airflow.sdk import DAG, Asset, AssetAlias, BaseOperator
from dags.assets import announce, read_by, written_by
from schemas.handoff import Handoff, StageReport
from schemas.stage_request import StageRequest
from schemas.stages import STAGES

STAGE = STAGES["preferences"]


class Stage(BaseOperator):
    """Ends as the stage would that left `preferences` at the version of the run's parameters."""

    def execute(self, context):
        params = context["params"]
        handoff = Handoff(table="preferences", uri="/w/preferences", version=params["version"], rows=1, schema_hash="h")
        report = StageReport(stage=STAGE.name, status=params["status"], handoffs={"preferences": handoff})
        request = StageRequest(stage=STAGE.name, dataset=params["dataset"], partition="2026-01-31")
        self.outlets = announce(context, request, report)


with DAG("writer", params={"dataset": "shop", "version": 1, "status": "done"}):
    Stage(task_id="preferences", inlets=read_by(STAGE), outlets=written_by(STAGE))
for name, schedule in {
    "shop": Asset("x-penchant://shop/preferences"),
    "any": Asset("x-penchant://*/preferences"),
    "other": Asset("x-penchant://other/preferences"),
    "all": AssetAlias("penchant-tables"),
}.items():
    with DAG(f"reader_{name}", schedule=schedule):
        BaseOperator(task_id="read")
'''
RUN = """
import json, sys
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.models.asset import AssetDagRunQueue, AssetEvent
from airflow.models.dag import DagModel
from airflow.utils.session import create_session
from sqlalchemy import select, update

bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
DagBundlesManager().sync_bundles_to_db()
sync_bag_to_db(bag, "dags-folder", None)
with create_session() as session:
    session.execute(update(DagModel).values(is_paused=False))
for given in json.loads(sys.argv[2]):
    run = bag.dags["writer"].test(logical_date=None, run_conf=given)
    with create_session() as session:
        told = session.scalars(select(AssetEvent).order_by(AssetEvent.id))
        events = [(event.asset.name, event.extra) for event in told]
        queued = sorted({row.target_dag_id for row in session.scalars(select(AssetDagRunQueue))})
        session.query(AssetDagRunQueue).delete()
    print("RESULT " + json.dumps([str(run.state), events, queued]), flush=True)
"""


def test_a_dag_that_is_scheduled_on_a_table_starts_when_the_table_has_a_new_version(tmp_path):
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "writer.py").write_text(DAGS)
    environment = local_environment(tmp_path / "home", Ports()) | {"AIRFLOW__CORE__DAGS_FOLDER": str(folder)}
    (tmp_path / "home" / "airflow").mkdir(parents=True, exist_ok=True)

    def run(*argv):
        done = subprocess.run(
            [sys.executable, *argv], env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    run("-m", "airflow", "db", "migrate")
    runs = [
        {"version": 1},
        {"version": 1},
        {"version": 1, "status": "reused"},
        {"version": 2},
        {"version": 5, "dataset": "books"},
    ]
    found = [
        json.loads(line.removeprefix("RESULT "))
        for line in run("-c", RUN, str(folder), json.dumps(runs)).splitlines()
        if line.startswith("RESULT ")
    ]
    assert [state for state, _, _ in found] == ["success"] * 5
    everybody, those_of_any = ["reader_all", "reader_any", "reader_shop"], ["reader_all", "reader_any"]
    assert [queued for _, _, queued in found] == [everybody, [], [], everybody, those_of_any]
    told = [(name, extra["dataset"], extra["version"]) for name, extra in found[-1][1]]
    assert sorted(told) == [
        ("x-penchant://*/preferences", "books", 5),
        ("x-penchant://*/preferences", "shop", 1),
        ("x-penchant://*/preferences", "shop", 2),
        ("x-penchant://books/preferences", "books", 5),
        ("x-penchant://shop/preferences", "shop", 1),
        ("x-penchant://shop/preferences", "shop", 2),
    ]
