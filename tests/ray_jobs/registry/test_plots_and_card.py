import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ray_jobs.evaluation.measurements import Measured, compare, from_rows, require_same_units, to_rows
from ray_jobs.evaluation.metrics import METRICS, Interval, Paired, per_user
from ray_jobs.evaluation.slices import length_bands
from ray_jobs.registry import plots
from ray_jobs.registry.model_card import EXPOSURE, LONGEST, CardContent, markdown
from ray_jobs.registry.promotion import Decision, coverage, quality, refused
from ray_jobs.registry.results import (
    BY_LENGTH,
    BY_TARGET,
    HEADINGS,
    ModelResult,
    SliceResult,
    of_model,
    ranked_beside,
    summarise,
    with_slices,
)
from schemas.errors import DataError
from schemas.handoff import Handoff

BASE = {"sasrec": "base"}


def result(model, condition="history", mean=0.1):
    interval = Interval(mean, mean / 2, mean * 1.5)
    metrics = dict.fromkeys(METRICS, interval)
    slices = [
        SliceResult(kind=kind, name=name, users=700, metrics=metrics)
        for kind, name in ((BY_TARGET, "head"), (BY_TARGET, "cold"), (BY_LENGTH, "5-9"))
    ]
    units = pa.array([f"u{user:04}" for user in range(1429)])
    measured = Measured(
        model=model,
        task="next_item",
        split="test",
        condition=condition,
        protocol="split=last",
        units=units,
        targets=units,
        slices={},
        values={},
    )
    return ModelResult(measured=measured, metrics=metrics, slices=slices)


def test_bars_carry_intervals_and_labels():
    figure = plots.metric_comparison([result("mendertok@a", "history+preference"), result("popularity@b", mean=0.05)])
    axes = figure.axes[0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mendertok + preference", "popularity"]
    assert [text.get_text() for text in axes.get_xticklabels()] == list(HEADINGS.values())
    assert len(axes.patches) == 2 * len(METRICS)
    assert "1,429" in axes.get_ylabel()


def test_groups_of_users_are_shown_with_their_size():
    figure = plots.slice_comparison([result("mendertok@a"), result("popularity@b", mean=0.05)])
    target, length = figure.axes
    assert [text.get_text() for text in target.get_xticklabels()] == ["head\n700 users", "cold\n700 users"]
    assert [text.get_text() for text in length.get_xticklabels()] == ["5-9\n700 users"]
    assert len(target.containers) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mendertok", "popularity"]


def test_popularity_of_lists_adds_up():
    percentiles = np.linspace(0, 1, 1000)
    shown = {"a": np.repeat([0, 3], [950, 50]), "b": np.ones(1000, dtype=np.int64)}
    axes = plots.list_popularity(percentiles, shown).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a (mean 98)", "b (mean 50)"]
    first, second = (line.get_ydata() for line in axes.lines)
    assert first.tolist() == [0] * 9 + [100]
    assert second.sum() == pytest.approx(100)


def test_code_use_counts_unused_codes():
    codes = np.array([[0, 1], [0, 2], [0, 3], [3, 0]])
    labels = [line.get_label() for line in plots.codebook_use(codes, (4, 4)).axes[0].lines]
    perplexity = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert labels == [f"level 1: 2 of 4 used, perplexity {perplexity:.1f}", "level 2: 4 of 4 used, perplexity 4.0"]


def rows(model, split, condition, ranks, protocol="split=last", first=0):
    users = range(first, first + len(ranks))
    return to_rows(
        [
            Measured(
                model=model,
                task="next_item",
                split=split,
                condition=condition,
                protocol=protocol,
                units=pa.array([f"u{user}" for user in users]),
                targets=pa.array([f"i{user}" for user in users]),
                slices={
                    "target": np.array(["cold" if user else "head" for user in users]),
                    "length": length_bands([4 + user for user in users]),
                },
                values=per_user(ranks),
            )
        ]
    )


def test_averages_per_model_and_condition():
    table = pa.concat_tables(
        [
            rows("mendertok@one", "test", "history", [1, 20]),
            rows("mendertok@one", "test", "history+preference", [1, 1]),
            rows("mendertok@one", "valid", "history", [20, 20]),
            rows("popularity@pop", "test", "history", [7, 7]),
            rows("sasrec@old", "test", "history", [20, 20]),
            rows("sasrec@base", "test", "history", [2, 2]),
        ]
    )
    everything = summarise(table)
    mine = of_model(everything, "one")
    assert [r.condition for r in mine] == ["history+preference", "history"]
    assert mine[0].metrics["ndcg_10"] == Interval(1.0, 1.0, 1.0)
    assert mine[1].metrics["recall_10"].mean == 0.5
    assert mine[1].metrics["recall_10"].low <= 0.5 <= mine[1].metrics["recall_10"].high
    assert [r.model for r in ranked_beside(everything, mine, BASE)] == ["sasrec@base", "popularity@pop"]
    baseline = of_model(everything, "base")
    beside = [r.model for r in ranked_beside(everything, baseline, BASE, "one")]
    assert beside == [mine[0].model, "popularity@pop"], "the recommender that lost, and no other SASRec"
    with_groups = with_slices(mine)[1].slices
    assert [(s.kind, s.name, s.users, s.metrics["recall_10"].mean) for s in with_groups] == [
        (BY_TARGET, "head", 1, 1.0),
        (BY_TARGET, "cold", 1, 0.0),
        (BY_LENGTH, "1-4", 1, 1.0),
        (BY_LENGTH, "5-9", 1, 0.0),
    ]
    assert compare(mine[0].measured, mine[1].measured, "ndcg_10").difference.mean == 0.5
    with pytest.raises(DataError, match="no valid row"):
        summarise(rows("a@b", "test", "history", [1]), "valid")


def test_a_model_that_lacks_a_metric_is_left_out_and_one_that_lacks_units_of_it_is_refused():
    old = rows("sasrec@old", "test", "history", [1, 3])
    new = rows("sasrec@new", "test", "history", [1, 2])
    without = old.filter(pc.field("metric") != "mrr")
    assert [r.model for r in summarise(pa.concat_tables([new, without]))] == ["sasrec@new"]
    with pytest.raises(DataError, match="run the evaluate stage"):
        summarise(without)
    with pytest.raises(DataError, match=r"recall_20 of sasrec@old \(history\) for other units"):
        summarise(old.filter((pc.field("metric") != "recall_20") | (pc.field("unit_id") != "u1")))


def test_models_of_histories_with_other_targets_are_not_set_beside():
    table = pa.concat_tables(
        [
            rows("popularity@p", "test", "history", [7]),
            rows("popularity@p@ties-shuffled-0", "test", "history", [7]),
            rows("sasrec@base@ties-shuffled-0", "test", "history", [2]),
            rows("hstu@one", "test", "history", [1]),
            rows("hstu@two@ties-shuffled-0", "test", "history", [1]),
        ]
    )
    everything = summarise(table)
    plain, shuffled = of_model(everything, "one"), of_model(everything, "two")
    assert [r.model for r in ranked_beside(everything, plain, BASE)] == ["popularity@p"]
    assert [r.model for r in ranked_beside(everything, shuffled, BASE)] == [
        "sasrec@base@ties-shuffled-0",
        "popularity@p@ties-shuffled-0",
    ]


def test_a_baseline_left_of_an_earlier_run_on_other_histories_is_not_set_beside():
    old = rows("sasrec@old", "test", "history", [2, 2])
    moved = old.set_column(old.column_names.index("target"), "target", pa.array(["other"] * len(old)))
    everything = summarise(pa.concat_tables([rows("hstu@one", "test", "history", [1, 1]), moved.cast(old.schema)]))
    mine = of_model(everything, "one")
    assert ranked_beside(everything, mine, BASE) == []
    (named,) = ranked_beside(everything, mine, {"sasrec": "old"})
    with pytest.raises(DataError, match="hstu@one and sasrec@old were evaluated on other users or targets"):
        compare(mine[0].measured, named.measured, "mrr")


def test_users_that_only_one_model_saw_are_not_compared():
    tables = [rows("a@1", "test", "history", [1, 20, 1]), rows("b@1", "test", "history", [1, 1, 1], first=1)]
    tables += [rows("c@1", "test", "history", [1], first=7)]
    one, other, third = (result.measured for result in summarise(pa.concat_tables(tables)))
    found = compare(one, other, "ndcg_10")
    assert (found.users, found.difference.mean) == (2, -0.5)
    with pytest.raises(DataError, match="no user in common"):
        compare(one, third, "ndcg_10")
    with pytest.raises(DataError, match="other users or targets"):
        require_same_units(one, other)


def _measured(task="rating", split="test", units=("a", "b"), targets=None, model="m@1"):
    return Measured(
        model=model,
        task=task,
        split=split,
        condition="history",
        protocol="held out",
        units=pa.array(units),
        targets=pa.nulls(len(units)) if targets is None else pa.array(targets),
        slices={},
        values={"rmse": np.arange(len(units), dtype=float)},
    )


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (_measured(task="sales", model="n@1"), "m@1 was evaluated for the task 'rating' and n@1 for 'sales'"),
        (_measured(split="valid"), "on the split 'test' and m@1 on 'valid'"),
        (_measured(targets=["x", "y"]), "other users or targets"),
    ],
)
def test_numbers_of_another_task_split_or_target_are_not_compared(other, words):
    for compared in (require_same_units, lambda a, b: compare(a, b, "rmse")):
        with pytest.raises(DataError, match=words):
            compared(_measured(), other)


def test_units_out_of_order_are_refused_and_no_labels_are_the_same_after_the_table():
    for units in (("b", "a"), ("a", "a")):
        with pytest.raises(ValueError, match="m@1: sort the units"):
            _measured(units=units)
    (read,) = from_rows(to_rows([_measured()]), "rating", "test")
    require_same_units(_measured(), read)
    assert compare(_measured(), read, "rmse").users == 2
    assert to_rows([]).schema == to_rows([_measured()]).schema


def test_numbers_of_two_protocols_are_not_compared():
    tables = [rows("a@1", "test", "history", [1, 2]), rows("b@1", "test", "history", [1, 2], "split=time")]
    one, other = (result.measured for result in summarise(pa.concat_tables(tables)))
    for compared in (require_same_units, lambda a, b: compare(a, b, "mrr")):
        with pytest.raises(DataError, match=r"a@1 .* protocol 'split=last' and b@1 by 'split=time', whose numbers do"):
            compared(one, other)


def card(**changes):
    values = {
        "model_name": "penchant-tiny",
        "recipe": "mendertok",
        "dataset": "tiny",
        "partition": "2026-01-31",
        "run_identity": "manual--2026-01-31--train-mendertok--abc--g0",
        "run_id": "r1",
        "git_revision": "f" * 40,
        "git_dirty": True,
        "items": 900,
        "users": 1429,
        "with_preference": 0,
        "results": [result("mendertok@a", "history+preference"), result("popularity@b")],
        "comparisons": {"popularity": Paired(Interval(0.01, -0.002, 0.03), 0.0123, 1429)},
        "exposures": {"mendertok": dict.fromkeys(EXPOSURE, 0.25)},
        "codebook": "c-1",
    }
    return CardContent(**{**values, **changes})


def test_the_card_says_what_a_reader_needs():
    text = markdown(card(), "3")
    for words in (
        "# mendertok for tiny, 2026-01-31",
        "codebook `c-1`",
        "| metric | **mendertok, given history and preferences** | popularity, given history |",
        "| MRR | 0.1000 (0.0500-0.1500) | 0.1000 (0.0500-0.1500) |",
        "popularity's, user by user: **+0.0100** (-0.0020 to +0.0300), p = 0.0123",
        "| target's popularity | cold | 700 | 0.1000 (0.0500-0.1500) |",
        "| share of the catalogue in some list | 0.250 |",
        'load_model("models:/penchant-tiny/3")',
        "uncommitted changes",
        "steering was not measured",
    ):
        assert words in text
    assert "uncommitted" not in markdown(card(git_dirty=False))


def test_a_long_card_fits_the_database():
    inputs = {
        f"table{n:03}": Handoff(table="t", uri="/w/t", version=n, rows=10**6, schema_hash="0" * 12) for n in range(200)
    }
    text = markdown(card(inputs=inputs))
    assert len(text) <= LONGEST
    assert text.endswith("(the rest is in the run's inputs)")
    assert "| table000 | 0 | 1,000,000 |" in text


def test_the_card_has_every_check_and_a_sentence_where_the_bar_does_not_tell():
    new, old = np.array([1.0, 1, 1, 0, 0, 0]), np.array([0.0, 0, 0, 1, 1, 0])
    checks = (quality(new, old, 0.1, "champion version 3"), coverage(0.1, 0.5, 0.2), refused("day", "it is older"))
    text = markdown(card(decision=Decision(checks)))
    assert "## Promotion: kept" in text
    assert "| NDCG@10 beside the champion | 0.5 | 0.3333 | 0.3 | failed |" in text, "above the bar, but not for sure"
    assert "of champion version 3, 6 users: the difference +0.1667 may be as low as -" in text
    assert "| coverage of ten | 0.1 | 0.5 | 0.4 | failed |\n| day | - | - | - | failed |" in text
    assert "coverage 0.1000 is below" not in text
    assert "\nit is older." in text


def test_a_card_whose_head_alone_is_too_long_is_cut():
    comparisons = {f"model {n}": Paired(Interval(0.01, -0.002, 0.03), 0.0123, 1429) for n in range(60)}
    assert len(markdown(card(comparisons=comparisons))) == LONGEST
