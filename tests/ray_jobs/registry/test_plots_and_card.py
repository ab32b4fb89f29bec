import math

import numpy as np
import pyarrow as pa
import pytest

from ray_jobs.evaluation.metrics import Interval
from ray_jobs.registry import plots
from ray_jobs.registry.model_card import LONGEST, CardContent, markdown
from ray_jobs.registry.results import METRICS, ModelResult, of_model, ranked_beside, summarise
from schemas.errors import DataError
from schemas.handoff import Handoff


def result(model, condition="history", mean=0.1):
    interval = Interval(mean, mean / 2, mean * 1.5)
    return ModelResult(model=model, condition=condition, users=1429, metrics=dict.fromkeys(METRICS, interval))


def test_losses_and_quality_have_axes_of_their_own():
    figure = plots.loss_curve({"train": [(2, 1.0), (1, 2.0)], "valid": []}, {"NDCG@10": [(1, 0.1)]})
    loss, quality = figure.axes
    assert loss.lines[0].get_xdata().tolist() == [1, 2]
    assert "nats" in loss.get_ylabel()
    assert quality.get_xlabel() == "epoch"
    assert len(plots.loss_curve({"train": [(1, 1.0)]}, {"NDCG@10": []}).axes) == 1


def test_bars_carry_intervals_and_labels():
    figure = plots.metric_comparison([result("mendertok@a", "history+preference"), result("popularity@b", mean=0.05)])
    axes = figure.axes[0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mendertok + preference", "popularity"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["Recall@5", "Recall@10", "NDCG@5", "NDCG@10"]
    assert len(axes.patches) == 8
    assert "1,429" in axes.get_ylabel()


def test_code_use_counts_unused_codes():
    codes = np.array([[0, 1], [0, 2], [0, 3], [3, 0]])
    labels = [line.get_label() for line in plots.codebook_use(codes, (4, 4)).axes[0].lines]
    perplexity = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert labels == [f"level 1: 2 of 4 used, perplexity {perplexity:.1f}", "level 2: 4 of 4 used, perplexity 4.0"]


def rows(model, split, condition, ranks):
    gains = [1 / math.log2(rank + 1) if rank <= 10 else 0.0 for rank in ranks]
    return [
        {
            "model": model,
            "split": split,
            "condition": condition,
            "recall_5": float(rank <= 5),
            "recall_10": float(rank <= 10),
            "ndcg_5": gain * (rank <= 5),
            "ndcg_10": gain,
        }
        for rank, gain in zip(ranks, gains, strict=True)
    ]


def test_averages_per_model_and_condition():
    table = pa.Table.from_pylist(
        rows("mendertok@one", "test", "history", [1, 20])
        + rows("mendertok@one", "test", "history+preference", [1, 1])
        + rows("mendertok@one", "valid", "history", [20, 20])
        + rows("popularity@pop", "test", "history", [7, 7])
        + rows("sasrec@old", "test", "history", [20, 20])
        + rows("sasrec@base", "test", "history", [2, 2])
    )
    everything = summarise(table)
    mine = of_model(everything, "one")
    assert [r.condition for r in mine] == ["history+preference", "history"]
    assert mine[0].metrics["ndcg_10"] == Interval(1.0, 1.0, 1.0)
    assert mine[1].metrics["recall_10"].mean == 0.5
    assert mine[1].metrics["recall_10"].low <= 0.5 <= mine[1].metrics["recall_10"].high
    assert [r.model for r in ranked_beside(everything, mine, "base")] == ["sasrec@base", "popularity@pop"]
    with pytest.raises(DataError, match="no valid row"):
        summarise(pa.Table.from_pylist(rows("a@b", "test", "history", [1])), "valid")


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
        "codebook": "c-1",
    }
    return CardContent(**{**values, **changes})


def test_the_card_says_what_a_reader_needs():
    text = markdown(card(), "3")
    for words in (
        "# mendertok for tiny, 2026-01-31",
        "codebook `c-1`",
        "| **mendertok** | history+preference | 1,429 | 0.1000 (0.0500-0.1500) |",
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
