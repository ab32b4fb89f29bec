import copy
import datetime as dt
import json
import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from mlflow import MlflowClient
from mlflow.entities import ViewType
from planted_warehouse import Warehouse
from retrained import registered_version

from infra.settings import load_settings
from pipelines import delta_tables
from ray_jobs import clean_up, continuation
from ray_jobs.data.tables import publish, read_table
from ray_jobs.registry import aliases, runs
from ray_jobs.retention import table_history as history
from ray_jobs.retention.versions import CleanUpSettings
from ray_jobs.tools import retrain
from schemas.errors import DataError
from schemas.handoff import StageReport, write_report
from schemas.sequences import SEQUENCES
from schemas.stage_request import StageRequest
from schemas.table_seal import newest_version, seal_table
from tests.ray_jobs.conftest import empty_registry, planted  # noqa: F401

NAME = "penchant-planted"
OWN = CleanUpSettings(keep_versions=1, keep_days=0, work_days=1)
LATER = dt.timedelta(days=60)


def age(uri, days):
    """Make a table look as if all of its commits were so many days older."""
    shift = days * 86_400_000
    for path in Path(uri, "_delta_log").glob("*.json"):
        aged = re.sub(
            r'"(timestamp|deletionTimestamp|modificationTime)":(\d+)',
            lambda found: f'"{found[1]}":{int(found[2]) - shift}',
            path.read_text(),
        )
        path.write_text(aged)
    for path in Path(uri).rglob("*"):
        moment = time.time() - days * 86400
        os.utime(path, (moment, moment))
    seal_table(uri, anew=True)


def size_of(*folders):
    files = [path for folder in folders for path in Path(folder).rglob("*") if path.is_file()]
    return len(files), sum(path.stat().st_size for path in files)


def data_files(uri):
    return {str(path.relative_to(uri)) for path in Path(uri).rglob("*.parquet") if "_delta_log" not in path.parts}


class World:
    """Six versions, each of its own version of `sequences`: 3 is champion, 2 was before, 3 began with 1, 6 is new."""

    def __init__(self, warehouse, tmp_path):
        self.warehouse, self.settings = warehouse, warehouse.settings
        self.sequences = warehouse.uri("sequences")
        self.mlruns = tmp_path / "mlruns"
        self.read, self.identities = {}, {}
        rows, day = read_table(self.sequences), warehouse.request("x").partition_date()
        self.client = runs.connect(self.settings)
        for number in range(1, 7):
            fewer = rows.slice(0, rows.num_rows - number)
            partition = {"partition_date": day}
            handoff = publish(fewer, SEQUENCES, self.sequences, partition, warehouse.request("x").identity())
            warehouse.handoffs["sequences"] = handoff
            name, trained = registered_version(warehouse)
            assert name == f"{NAME}/{number}"
            self.client.delete_registered_model_alias(NAME, "champion")  # judging beside one takes time
            self.read[number] = (handoff.version, fewer.num_rows)
            self.identities[number] = trained.outputs["run_identity"]
            self.tag(number, "penchant.decision", "promoted" if number == 3 else "kept")
        aliases.point_alias(self.client, NAME, "champion", "3")
        self.tag(3, "penchant.champion_before", "2")
        self.tag(3, "penchant.warm_start", f"{NAME}/1")
        self.tag(1, "penchant.warm_start", f"{NAME}/5")
        self.folder(self.identities[4])
        age(self.sequences, 60)

    def tag(self, number, key, value):
        self.client.set_model_version_tag(NAME, str(number), key, value)

    def folder(self, identity):
        """What Ray Train leaves."""
        path = Path(self.settings.ray.storage, identity, "checkpoint_0", "state.pt")
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 1000)
        return path

    def unregistered(self, generation, status="FINISHED"):
        request = replace(self.warehouse.request("train", recipe="sasrec"), generation=generation)
        run_id = runs.find_or_start(self.settings, request, "baseline", {})
        if status != "RUNNING":
            self.client.set_terminated(run_id, status)
        return self.folder(request.identity().key())

    def clean(self, own=OWN, **changes):
        request = StageRequest(stage="clean_up", dataset="planted", partition="2026-03-01")
        return clean_up.clean_up(self.settings, request, replace(own, **changes), dt.datetime.now(dt.UTC) + LATER)

    def versions(self):
        return sorted(int(v.version) for v in self.client.search_model_versions(f"name = '{NAME}'"))

    def rows_at(self, number):
        return DeltaTable(self.sequences, version=self.read[number][0]).to_pyarrow_table().num_rows

    def bundles(self):
        return {path.name for path in Path(self.settings.home, "bundles").iterdir()}

    def plan(self):
        pages = Path(self.settings.data_docs_dir("planted"), "reports")
        assert (pages / "clean-up--2026-03-01.html").read_text().startswith("<!doctype html>")
        return json.loads((pages / "clean-up--2026-03-01.json").read_text())


@pytest.fixture(scope="module")
def built(planted, empty_registry, tmp_path_factory):  # noqa: F811
    """The world, made once, and a copy of its files."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(planted.settings.home, folder / "home")
    old, home = planted.settings.home, str(folder / "home")
    shutil.copy(empty_registry, folder / "home" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(runs, "log_figure", lambda *_: None)  # costs more than all the rest
        environment = {name: value.replace(old, home) for name, value in planted.environment.items()}
        for name, value in environment.items():
            patch.setenv(name, value)
        handoffs = {n: replace(h, uri=h.uri.replace(old, home)) for n, h in planted.handoffs.items()}
        world = World(Warehouse(load_settings(), environment, handoffs), folder)
    saved = tmp_path_factory.mktemp("saved")
    shutil.copytree(folder, saved, dirs_exist_ok=True)
    return world, folder, saved


@pytest.fixture
def world(built, monkeypatch, tmp_path):
    """The world as it was made. MLflow's database is a new file each time: its clients keep the old one open."""
    made, folder, saved = built
    shutil.rmtree(folder)
    shutil.copytree(saved, folder)
    monkeypatch.chdir(folder)
    shutil.copy(folder / "home" / "mlflow.db", tmp_path / "mlflow.db")
    for name, value in made.warehouse.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PENCHANT_MLFLOW__TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    settings = load_settings()
    world = copy.copy(made)
    world.settings, world.client = settings, runs.connect(settings)
    world.warehouse = replace(made.warehouse, settings=settings)
    return world


def test_what_nothing_needs_goes_and_what_a_version_needs_stays(world, capsys):
    finished, running = world.unregistered(1), world.unregistered(2, "RUNNING")
    before, on_disk = (
        data_files(world.sequences),
        size_of(world.mlruns, world.settings.home + "/bundles", world.settings.ray.storage),
    )
    needed = {
        f"partition_date=2026-01-31/{Path(f).name}"
        for n in (2, 3)
        for f in DeltaTable(world.sequences, version=world.read[n][0]).file_uris()
    }
    unpinned = DeltaTable(world.sequences).vacuum(retention_hours=720, full=True)
    assert needed < set(unpinned), "a negative control: without pins these files would go"
    assert len(unpinned) == len(before) - 1

    dry = world.clean(dry_run=True)
    assert data_files(world.sequences) == before
    assert world.versions() == [1, 2, 3, 4, 5, 6]
    plan = world.plan()
    assert plan["dropped"] == [f"{NAME}/4", f"{NAME}/5"]
    reasons = {name.rpartition("/")[2]: "; ".join(kept["reasons"]) for name, kept in plan["kept"].items()}
    assert reasons["3"] == "alias champion; promoted last: the next day continues from it"
    assert reasons["2"] == "champion before 3, for a roll-back"
    assert reasons["1"] == f"{NAME}/3 started from it"
    assert reasons["6"] == "alias challenger; among the newest 1"
    assert "## Versions that are removed: 2" in capsys.readouterr().out
    [table] = [one for one in plan["tables"] if one["table"] == "sequences"]
    assert {int(v) for v in table["pinned"]} == {world.read[n][0] for n in (2, 3, 6)}

    report = world.clean()
    assert {**report.counts, "tables_verified": 0} == {**dry.counts, "tables_verified": 0}
    assert (report.counts["versions_before"], report.counts["versions_deleted"]) == (6, 2)
    assert world.versions() == [1, 2, 3, 6]
    left = data_files(world.sequences)
    assert len(before) - len(left) == report.counts["table_files"] == len(unpinned) - 2
    for number in (2, 3, 6):
        assert world.rows_at(number) == world.read[number][1]
    for number in (1, 4, 5):
        with pytest.raises((FileNotFoundError, DeltaError)):
            world.rows_at(number)
    assert world.bundles() == {world.identities[n] for n in (1, 2, 3, 6)}
    assert not finished.exists()
    assert running.exists(), "a run that goes on keeps its checkpoints"
    now = size_of(world.mlruns, world.settings.home + "/bundles", world.settings.ray.storage)
    assert on_disk[0] - now[0] == report.counts["run_files"]
    assert on_disk[1] - now[1] == report.counts["run_bytes"] > 2000
    experiment = world.client.get_experiment_by_name("penchant/planted").experiment_id
    deleted = world.client.search_runs([experiment], run_view_type=ViewType.DELETED_ONLY)
    assert {run.data.tags["penchant.model_version"] for run in deleted} == {f"{NAME}/4", f"{NAME}/5"}
    assert len(world.client.search_logged_models([experiment])) == 4

    again = world.clean()
    assert again.status == "reused"
    assert [again.counts[name] for name in ("versions_deleted", "run_files", "table_files", "log_files", "bytes")] == [
        0
    ] * 5
    kept = world.client.get_model_version(NAME, "1")
    assert kept.tags["penchant.cold_since"] == "2026-01-31"
    request = StageRequest(stage="continuation", dataset="planted", partition="2026-02-03")
    assert continuation.days_since_cold(world.client, world.client.get_model_version(NAME, "3"), request) == 3
    assert retrain.main(["--model", f"{NAME}/3"]) == 0, "all that it was made of is there"


@pytest.mark.parametrize("moment", ["delete_logged_model", "delete_run", "vacuum"])
def test_a_killed_clean_up_is_completed_by_the_next(world, monkeypatch, moment):
    def die(*args, **kwargs):
        if moment != "vacuum" or not kwargs.get("dry_run", args[1:] and args[1]):
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    real = DeltaTable.vacuum
    report = StageReport(stage="train", status="done", outputs={"run_identity": world.identities[4]})
    uri = world.settings.report_uri("planted", "2026-01-31", world.identities[4])
    write_report(uri, report)
    with monkeypatch.context() as crash:
        crash.setattr(DeltaTable if moment == "vacuum" else MlflowClient, moment, die)
        with pytest.raises(KeyboardInterrupt):
            world.clean()
    assert world.versions() == [1, 2, 3, 6]
    files = len(data_files(world.sequences))
    assert world.clean().status == "done"
    assert len(data_files(world.sequences)) < files
    assert world.bundles() == {world.identities[n] for n in (1, 2, 3, 6)}
    assert not Path(uri).exists(), "the day's train stage is not told that its bundle is there"
    assert world.clean().status == "reused"


def test_a_loss_fails_the_task_and_names_it(world, monkeypatch):
    monkeypatch.setattr(clean_up, "pins", lambda *_: {})
    with pytest.raises(
        DataError, match=rf"took what kept versions need: {NAME}/2: table sequences at .* has no version 3"
    ):
        world.clean()


def test_protected_versions_and_those_of_other_models_stay(world):
    world.tag(4, "penchant.keep", "true")
    five = world.client.get_model_version(NAME, "5")
    world.client.create_registered_model("shop-front")
    world.client.create_model_version("shop-front", five.source, run_id=five.run_id)
    world.clean(dry_run=True)
    plan = world.plan()
    assert plan["dropped"] == []
    assert plan["kept"][f"{NAME}/4"]["reasons"] == ["tag penchant.keep"]
    assert plan["kept"][f"{NAME}/5"]["reasons"] == ["also registered as shop-front/1"]
    assert world.clean(keep_days=90, dry_run=True).counts["versions_deleted"] == 0


def test_an_erasure_wins_over_a_pin_once_the_retention_has_passed(world):
    table = DeltaTable(world.sequences)
    table.delete("user_id = 'U000'")
    log = Path(world.sequences, "_delta_log", f"{DeltaTable(world.sequences).version():020}.json")
    noted = [json.loads(line) for line in log.read_text().splitlines()]
    for line in noted:
        if "commitInfo" in line:
            line["commitInfo"]["userMetadata"] = json.dumps({history.NOTE: "abc"})
    log.write_text("\n".join(json.dumps(line, separators=(",", ":")) for line in noted))
    world.clean(dry_run=True)
    assert not [one for one in world.plan()["tables"] if one["released"]], "younger than the retention"
    age(world.sequences, 40)
    report = world.clean()
    [planned] = [one for one in world.plan()["tables"] if one["table"] == "sequences"]
    assert {int(v) for v in planned["released"]} == {world.read[n][0] for n in (2, 3, 6)}
    assert planned["pinned"] == {}
    assert report.counts["log_files"] > 0
    assert len(data_files(world.sequences)) == 1
    assert DeltaTable(world.sequences).to_pyarrow_table().num_rows == world.read[6][1] - 1
    assert any("erased" in lack for lack in world.plan()["kept"][f"{NAME}/3"]["lacks"])
    assert world.clean().status == "reused"


def test_the_log_goes_up_to_the_first_version_that_is_needed(world):
    world.client.delete_registered_model_alias(NAME, "champion")
    world.tag(3, "penchant.decision", "kept")
    report = world.clean()
    assert world.versions() == [6]
    assert report.counts["log_files"] > 3
    entries = sorted(int(p.name[:20]) for p in Path(world.sequences, "_delta_log").glob("*.json"))
    assert entries[0] == world.read[6][0]
    assert world.rows_at(6) == world.read[6][1]
    assert world.clean().status == "reused"


def test_spark_reads_and_writes_a_table_whose_log_was_cut(world, spark):
    world.client.delete_registered_model_alias(NAME, "champion")
    world.tag(3, "penchant.decision", "kept")
    assert world.clean().counts["log_files"] > 3
    version, rows = world.read[6]
    newest, last = delta_tables.read_table(spark, world.sequences), DeltaTable(world.sequences).version()
    assert newest_version(world.sequences) == last
    assert newest.count() == rows
    with pytest.raises(DataError, match=f"no version {version} "):  # Spark refuses what is older than the retention
        delta_tables.read_table(spark, world.sequences, version)
    assert world.rows_at(6) == rows, "and deltalake, which trains a version again, reads it"
    request = world.warehouse.request("sequences")
    partition = {"partition_date": request.partition_date()}
    fewer = newest.where("user_id <> 'U000'")
    handoff = delta_tables.write_partition(spark, fewer, SEQUENCES, world.sequences, partition, request.identity())
    assert (handoff.version, handoff.rows) == (last + 1, rows - 1)
    assert DeltaTable(world.sequences).to_pyarrow_table().num_rows == rows - 1
