"""A small trained model with its tables, as the stages before `register` leave them."""

import datetime as dt
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from infra.settings import Settings, load_settings
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.tables import publish
from ray_jobs.evaluation.metrics import per_user
from ray_jobs.evaluation.slices import length_bands
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
from ray_jobs.recommenders.bundle import save_bundle
from ray_jobs.registry import runs
from schemas.handoff import Handoff
from schemas.stage_request import StageRequest
from schemas.tables import TABLES

DAY = "2026-01-31"
ITEMS = tuple(f"i{n:02}" for n in range(30))
USERS = tuple(f"u{n:02}" for n in range(24))


@pytest.fixture
def settings(tmp_path, monkeypatch, empty_registry):
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_registry, tmp_path / "mlflow.db")
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PENCHANT_MLFLOW__TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return load_settings()


@pytest.fixture
def request_of():
    def build(**changes):
        values = {
            "stage": "train",
            "dataset": "tiny",
            "partition": DAY,
            "recipe": "sasrec",
            "inputs": {
                "sequences": Handoff(table="sequences", uri="/w/sequences", version=0, rows=4, schema_hash="abc"),
                "items": Handoff(table="items", uri="/w/items", version=3, rows=9, schema_hash="def"),
            },
        }
        return StageRequest(**{**values, **changes})

    return build


def history_of(number):
    """Items of user `number`, oldest first: 5 to 8 different ones."""
    return [ITEMS[(number * 7 + 3 * step) % len(ITEMS)] for step in range(5 + number % 4)]


def preference_rows():
    """Every third user has two preferences at the last position and an older one before it."""
    for number in range(0, len(USERS), 3):
        last = len(history_of(number)) - 1
        yield number, last - 1, ["I want something cheap."], ["like"], "ok"
        yield number, last, ["I like jazz. ", "I dislike loud amplifiers."], ["like", "dislike"], "ok"
    yield 1, 2, [], [], "none"


@dataclass(frozen=True)
class World:
    settings: Settings
    home: Path
    handoffs: dict[str, Handoff]

    def publish(self, name, rows, partition):
        table = TABLES[name]
        schema = pa.schema([field for field in table.arrow_schema() if field.name not in partition])
        identity = StageRequest(stage="test", dataset="tiny", partition=DAY).identity()
        uri = self.settings.table_uri("tiny", name)
        handoff = publish(pa.Table.from_pylist(rows, schema=schema), table, uri, partition, identity)
        return World(self.settings, self.home, {**self.handoffs, name: handoff})

    def train(self, recipe="sasrec", generation=0, seed=0):
        """A trained model's bundle and run; gives what the train stage hands on."""
        request = StageRequest(
            stage="train",
            dataset="tiny",
            partition=DAY,
            recipe=recipe,
            generation=generation,
            inputs={name: self.handoffs[name] for name in ("sequences", "items")},
        )
        run_id = runs.find_or_start(self.settings, request, recipe, {"epochs": 2})
        runs.log_metrics(run_id, [("loss", 3.0 / epoch, epoch) for epoch in (1, 2)])
        runs.log_metrics(run_id, [("valid_ndcg_10", 0.1 * epoch, epoch) for epoch in (1, 2)])
        runs.finish(run_id)
        torch.manual_seed(seed)
        prices = pa.array([float(number) for number in range(len(ITEMS))])
        attributes = {"brand": pa.array(ITEMS), "categories": pa.array([[]] * len(ITEMS)), "price": prices}
        titles = tuple(f"Title of {item}" for item in ITEMS)
        catalogue = Catalogue(ITEMS, titles, ITEMS, attributes=pa.table(attributes))
        model = SASRec(SASRecSettings(max_history=6, width=8, layers=1, evaluation_batch_size=5), catalogue)
        made = {"dataset": request.dataset, "partition": request.partition}
        path = save_bundle(self.home / "models" / request.identity().key(), model, made)
        return {"bundle_uri": str(path), "mlflow_run_id": run_id, "run_identity": request.identity().key()}

    def evaluate(self, ranks, protocol="split=last"):
        """Rows of `measurements`: model -> function of the user's number that gives the rank of the target."""
        world = self
        for model, rank_of in ranks.items():
            rows = []
            for number, user in enumerate(USERS):
                for split in ("valid", "test"):
                    before = len(history_of(number)) - 1
                    slices = {"target": ("cold", "tail", "head")[number % 3], "length": str(length_bands([before])[0])}
                    rows += [
                        {
                            "split": split,
                            "condition": "history",
                            "unit_id": user,
                            "metric": metric,
                            "value": float(values[0]),
                            "target": history_of(number)[-1],
                            "slices": list(slices.items()),
                            "protocol": protocol,
                        }
                        for metric, values in per_user([rank_of(number)]).items()
                    ]
            partition = {"partition_date": dt.date.fromisoformat(DAY), "task": "next_item", "model": model}
            world = world.publish("measurements", rows, partition)
        return world

    def request(self, stage, upstream, **changes):
        return StageRequest(
            stage=stage, dataset="tiny", partition=DAY, inputs=self.handoffs, upstream=upstream, **changes
        )

    def register_request(self, trained, evaluated=None, baseline=None, **changes):
        """The request, with what evaluate handed on, and a `baseline` that was trained beside."""
        upstream = {f"train_recommender.{k}": v for k, v in trained.items()}
        upstream |= {f"train_baseline.{k}": v for k, v in (baseline or {}).items()}
        upstream |= {f"evaluate.{k}": v for k, v in (evaluated or {}).items()}
        return self.request("register", upstream, **changes)


@pytest.fixture
def world(settings, tmp_path):
    day = dt.date.fromisoformat(DAY)
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    items = [{"item_id": i, "title": f"Title of {i}", "categories": ["Music"], "text": f"Title of {i}"} for i in ITEMS]
    sequences = [
        {
            "user_id": user,
            "item_ids": history_of(number),
            "occurred_at": [moment + dt.timedelta(days=n) for n in range(len(history_of(number)))],
            "ratings": [float(1 + n % 5) for n in range(len(history_of(number)))],
            "tied_with_previous": [False] * len(history_of(number)),
            "tie_rule": "file order",
            "length": len(history_of(number)),
            "valid_position": len(history_of(number)) - 2,
            "test_position": len(history_of(number)) - 1,
            "time_valid_start": len(history_of(number)),
            "time_test_start": len(history_of(number)),
        }
        for number, user in enumerate(USERS)
    ]
    preferences = [
        {
            "user_id": USERS[number],
            "position": position,
            "as_of": moment,
            "preferences": sentences,
            "sentiments": sentiments,
            "evidence": [[position]] * len(sentences),
            "status": status,
        }
        for number, position, sentences, sentiments, status in preference_rows()
    ]
    made = World(settings, tmp_path, {})
    for name, rows in (("items", items), ("sequences", sequences), ("preferences", preferences)):
        made = made.publish(name, rows, {"partition_date": day})
    return made


@pytest.fixture
def registered(world):
    """A world whose model is evaluated and registered; gives the world, the register request and its report."""
    from ray_jobs import register

    trained = world.train()
    world = world.evaluate(
        {
            f"sasrec@{trained['run_identity']}": lambda n: 1 + n % 6,
            "popularity@manual": lambda n: 2 + n,
        }
    )
    request = world.register_request(trained)
    return world, request, register.run(request)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("PENCHANT_") and name != "PENCHANT_DATA"]:
        monkeypatch.delenv(name)
