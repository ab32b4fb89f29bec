import datetime as dt
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from infra.errors import SettingError
from ray_jobs import train
from ray_jobs.data.tables import publish, read_table
from ray_jobs.data.ties import move_preferences, shuffle_ties
from ray_jobs.data.training_data import read_training_data
from ray_jobs.tools import tie_report
from schemas.errors import DataError
from schemas.recipes import Need
from schemas.sequences import SEQUENCES

DAY = dt.date(2026, 1, 31)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MLflow without a server keeps artifacts in the working folder.


def histories(tied, users=("u",)):
    length = len(tied)
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    times = [moment + dt.timedelta(days=sum(not same for same in tied[: p + 1])) for p in range(length)]
    rows = [
        {
            "user_id": user,
            "item_ids": [f"i{p}" for p in range(length)],
            "occurred_at": times,
            "ratings": [float(p) for p in range(length)],
            "tied_with_previous": tied,
            "tie_rule": "item_id",
            "length": length,
            "valid_position": length - 2,
            "test_position": length - 1,
            "time_valid_start": length,
            "time_test_start": length,
            "partition_date": DAY,
        }
        for user in users
    ]
    return pa.Table.from_pylist(rows, schema=SEQUENCES.arrow_schema())


def test_only_the_order_inside_a_tie_changes():
    tied = [False, True, True, False, False, True]
    users = tuple(f"u{n}" for n in range(200))
    table = histories(tied, users)
    found, _ = shuffle_ties(table, seed=0)
    assert found.schema == table.schema
    assert found.drop_columns(["item_ids", "ratings"]) == table.drop_columns(["item_ids", "ratings"])
    seen = np.array([[int(item[1:]) for item in row] for row in found["item_ids"].to_pylist()])
    assert (seen == np.array(found["ratings"].to_pylist())).all(), "ratings stay with their items"
    assert (seen[:, 3] == 3).all()
    firsts = np.bincount(seen[:, 0], minlength=6) / len(users)
    assert firsts[:3] == pytest.approx([1 / 3] * 3, abs=0.12)
    assert 0.4 < (seen[:, 5] == 4).mean() < 0.6
    assert shuffle_ties(table, seed=0)[0] == found
    assert shuffle_ties(table, seed=1)[0] != found
    alone, _ = shuffle_ties(table.slice(7, 1), seed=0)
    assert alone["item_ids"].to_pylist()[0] == found["item_ids"].to_pylist()[7], "the other users do not matter"


def test_histories_without_ties_stay():
    table = histories([False] * 5)
    found, moved = shuffle_ties(table, seed=3)
    assert (found, list(map(list, moved.positions))) == (table, [[0, 1, 2, 3, 4]])


def test_no_preference_rests_on_an_item_that_is_still_to_come():
    table = histories([False, False, True, True, True, False], tuple(f"u{n}" for n in range(50)))
    found, known_at = shuffle_ties(table, seed=5)
    users = known_at.users.to_pylist()
    told = pa.table(
        {
            "user_id": [user for user in users for _ in range(6)],
            "position": list(range(6)) * len(users),
            "preferences": [[f"up to i{p}"] for _ in users for p in range(6)],
        }
    )
    items = dict(zip(found["user_id"].to_pylist(), found["item_ids"].to_pylist(), strict=True))
    moved = move_preferences(told, known_at).to_pylist()
    for row in moved:
        newest = int(row["preferences"][0].removeprefix("up to i"))
        there = {int(item[1:]) for item in items[row["user_id"]][: row["position"] + 1]}
        assert set(range(newest + 1)) <= there
    assert len({(row["user_id"], row["position"]) for row in moved}) == len(moved)
    careless = [
        {"user_id": user, "position": p, "newest": p}
        for user in items
        for p in range(6)
        if not set(range(p + 1)) <= {int(item[1:]) for item in items[user][: p + 1]}
    ]
    assert careless, "left where they were, some would tell of what is to come"


def test_flags_of_another_length_are_refused():
    table = histories([False, True, False])
    field = table.schema.field("tied_with_previous")
    broken = table.set_column(4, field, pa.array([[False]], field.type))
    with pytest.raises(DataError, match=r"user .u.*1 values for 3 items"):
        shuffle_ties(broken, seed=0)


def _tied(warehouse, last=3):
    """The planted histories with the last positions of every user at one time, sorted by item id."""
    rows = read_table(warehouse.uri("sequences")).to_pylist()
    for row in rows:
        tied = min(last, len(row["item_ids"]))
        row["item_ids"] = [*row["item_ids"][:-tied], *sorted(row["item_ids"][-tied:])]
        row["occurred_at"] = [*row["occurred_at"][:-tied], *[row["occurred_at"][-tied]] * tied]
        row["tied_with_previous"] = [*[False] * (len(row["item_ids"]) - tied + 1), *[True] * (tied - 1)]
    table = pa.Table.from_pylist(rows, schema=SEQUENCES.arrow_schema())
    identity = warehouse.request("sequences").identity()
    publish(table, SEQUENCES, warehouse.uri("sequences"), {"partition_date": DAY}, identity)


def test_training_data_comes_shuffled_where_the_settings_say_so(warehouse):
    _tied(warehouse)

    def read(**overrides):
        request = warehouse.request("train", overrides={f"training_data.{k}": v for k, v in overrides.items()})
        return read_training_data(warehouse.settings, request, {Need.PREFERENCES})

    plain, shuffled, other = read(), read(ties="shuffled"), read(ties="shuffled", ties_seed=1)
    assert (plain.version, shuffled.version, other.version) == ("", "ties-shuffled-0", "ties-shuffled-1")
    lasts = [np.array([items[-1] for items in data.histories.items]) for data in (plain, shuffled, other)]
    assert 0.4 < (lasts[0] != lasts[1]).mean() < 0.9
    assert (lasts[1] != lasts[2]).any()
    with pytest.raises(SettingError, match=r"ties is shuffled and training_data\.corrections is remove"):
        read(ties="shuffled", corrections="remove")
    with pytest.raises(SettingError, match="ties_seed is -1"):
        read(ties_seed=-1)


def test_a_recipe_that_needs_times_is_refused_where_no_history_has_two(warehouse):
    _tied(warehouse, last=1000)
    with pytest.raises(DataError, match=r"hstu needs times, but in planted .*or set hstu\.time_bias to false"):
        train.run(warehouse.request("train", recipe="hstu"))


def test_both_versions_side_by_side(warehouse, capsys):
    _tied(warehouse)
    tie_report.main(["--dataset=planted", "--partition=2026-01-31", "--recipes=popularity"])
    text = capsys.readouterr().out.splitlines()
    assert text[0].startswith("80 users; the test item of ")
    assert [line.split()[:2] for line in text[2:]] == [["popularity", "Recall@10"], ["popularity", "NDCG@10"]]
    request = warehouse.request("tie_report")
    found = tie_report.tie_report(warehouse.settings, replace(request, dag="manual"), ["popularity"])
    assert found.moved_targets > 0.4
    assert found.rows[0].lost.difference.mean == pytest.approx(found.rows[0].as_is.mean - found.rows[0].shuffled.mean)
    with pytest.raises(SystemExit, match="2"):
        tie_report.main(["--dataset=planted", "--partition=2026-01-31", "--recipes=tiger"])
    assert "give some of" in capsys.readouterr().err


def test_a_model_of_one_version_is_not_evaluated_on_another(warehouse):
    from ray_jobs import evaluate

    _tied(warehouse)
    overrides = {"training_data.ties": "shuffled"}
    trained = train.run(warehouse.request("train", recipe="popularity", overrides=overrides))
    upstream = {f"train_recommender.{name}": value for name, value in trained.outputs.items()}
    with pytest.raises(DataError, match="trained on histories 'ties-shuffled-0', and these are 'as they are'"):
        evaluate.run(warehouse.request("evaluate", upstream=upstream))
    report = evaluate.run(warehouse.request("evaluate", upstream=upstream, overrides=overrides))
    assert report.status == "done"
    models = set(read_table(warehouse.uri("measurements"))["model"].to_pylist())
    assert len(models) == 2
    assert all(model.endswith("@ties-shuffled-0") for model in models)
