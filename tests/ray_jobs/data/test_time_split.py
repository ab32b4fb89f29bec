import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from infra.errors import SettingError
from ray_jobs import evaluate, semantic_ids, train
from ray_jobs.data.day_sequences import split_by_time, training_ends
from ray_jobs.data.examples import evaluation_examples, training_examples
from ray_jobs.data.histories import read_histories
from ray_jobs.data.settings import TrainingDataSettings
from ray_jobs.data.tables import publish, read_table
from ray_jobs.data.training_data import read_training_data
from ray_jobs.stages.evaluate import EvaluateSettings
from schemas.errors import DataError
from schemas.recipes import Need
from schemas.sequences import SEQUENCES

DAY = dt.date(2026, 1, 31)
VALID_CUT, TEST_CUT = 4, 6
"""Days after the first one: planted histories have an item a day."""
BY_TIME = {"training_data.split": "time"}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MLflow without a server keeps artifacts in the working folder.


def _cut(warehouse, poison=""):
    """The planted histories cut by time; with `poison` for every item that training must not see."""
    rows = read_table(warehouse.uri("sequences")).to_pylist()
    for row in rows:
        row["time_valid_start"], row["time_test_start"] = (min(cut, row["length"]) for cut in (VALID_CUT, TEST_CUT))
        if poison:
            row["item_ids"] = [*row["item_ids"][:VALID_CUT], *[poison] * (row["length"] - VALID_CUT)]
    return pa.Table.from_pylist(rows, schema=SEQUENCES.arrow_schema())


@pytest.fixture
def by_time(warehouse):
    identity = warehouse.request("sequences").identity()
    publish(_cut(warehouse), SEQUENCES, warehouse.uri("sequences"), {"partition_date": DAY}, identity)
    return warehouse


def _data(warehouse, **overrides):
    request = warehouse.request("train", overrides=BY_TIME | overrides)
    return read_training_data(warehouse.settings, request, {Need.PREFERENCES})


def test_targets_follow_the_cuts(by_time):
    data = _data(by_time)
    assert data.version == "time-split"
    histories = data.histories
    for split, cut in (("valid", VALID_CUT), ("test", TEST_CUT)):
        examples = evaluation_examples(histories, split, 20)
        assert set(examples.positions.tolist()) == {cut}
        assert examples.users.tolist() == [user for user, items in enumerate(histories.items) if len(items) > cut]
    assert 0 < len(examples) < len(histories), "whoever chose nothing after the test cut has no target"
    assert {len(histories.training_items(user)) for user in range(len(histories))} == {VALID_CUT}
    part = histories.part(3, 5)
    assert [part.training_items(user).tolist() for user in (0, 1)] == [items[:4].tolist() for items in part.items]


@pytest.mark.parametrize("every_prefix", [True, False])
def test_training_examples_are_the_same_whatever_came_after_the_cut(by_time, every_prefix):
    data = _data(by_time)
    poison = data.catalogue.item_ids[0]
    clean, poisoned = (
        training_examples(read_histories(split_by_time(rows), data.catalogue), 20, every_prefix)
        for rows in (_cut(by_time), _cut(by_time, poison))
    )
    assert clean.columns.keys() == poisoned.columns.keys() >= {"history", "targets", "times"}
    for one, other in ((clean.columns, poisoned.columns), (clean.offsets, poisoned.offsets)):
        assert all(np.array_equal(values, other[name]) for name, values in one.items())
    assert clean.positions.max() < VALID_CUT
    by_last = training_examples(read_histories(_cut(by_time, poison), data.catalogue), 20, every_prefix)
    assert by_last.positions.max() >= VALID_CUT, "the split by last items does see them"


def test_codebooks_are_fitted_on_what_came_before_the_cut(by_time):
    request = by_time.request("semantic_ids", overrides=BY_TIME)
    items = sorted(_data(by_time).catalogue.item_ids)
    rows = semantic_ids.training_sequences(by_time.settings, request, items)
    assert {len(row) for row in rows} == {VALID_CUT}
    plain = _cut(by_time)
    assert training_ends(plain).tolist() == [length - 2 for length in plain["length"].to_pylist()]


def test_histories_that_nothing_can_be_learned_from_or_judged_on_are_refused(warehouse):
    with pytest.raises(DataError, match=r"no user with items both before the validation cut and after the test cut"):
        _data(warehouse)
    with pytest.raises(SettingError, match=r"split is time, training_data\.ties shuffled"):
        _data(warehouse, **{"training_data.ties": "shuffled"})
    with pytest.raises(SettingError, match=r"corrections remove: set split to last"):
        _data(warehouse, **{"training_data.corrections": "remove"})


def test_the_protocol_says_how_ties_were_ordered():
    how = TrainingDataSettings(ties="shuffled", ties_seed=3)
    expected = "split=last ties=shuffled-3 catalogue=interacted seen=left out"
    assert evaluate.protocol_of(how, EvaluateSettings()) == expected


def test_a_model_of_one_split_is_not_evaluated_on_the_other(by_time):
    quiet = {"steering.enabled": False}
    trained = train.run(by_time.request("train", recipe="popularity", overrides=BY_TIME | quiet))
    upstream = {f"train_recommender.{name}": value for name, value in trained.outputs.items()}
    with pytest.raises(DataError, match="trained on histories 'time-split', and these are 'as they are'"):
        evaluate.run(by_time.request("evaluate", upstream=upstream))
    report = evaluate.run(by_time.request("evaluate", upstream=upstream, overrides=BY_TIME))
    rows = read_table(by_time.uri("measurements"))
    assert {model.rsplit("@", 1)[-1] for model in rows["model"].to_pylist()} == {"time-split"}
    assert report.outputs["protocol"] == "split=time catalogue=interacted seen=left out"
    assert rows["protocol"].unique().to_pylist() == [report.outputs["protocol"]]
    users = {split: len(rows.filter(pc.field("split") == split)["unit_id"].unique()) for split in ("valid", "test")}
    assert users["test"] < users["valid"] <= len(_data(by_time).histories)
