"""Evaluate a model on the preference benchmark under several conditions.

Under the condition `GIVEN` the model gets the preference that the benchmark's axis prescribes. On the axis
recommendation this preference was matched to the target, an oracle, as in Paischer et al. (2025); the other conditions
show how much of the result is due to it. The lifts of a model that does not read text are exactly zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.data.batches import make_batch
from ray_jobs.data.catalogue import IntArray
from ray_jobs.evaluation.exposure import LIST_LENGTH
from ray_jobs.evaluation.metrics import Interval, Paired, bootstrap_each, ndcg, paired, recall
from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.training.trainable import Notify, silent
from schemas.preference_benchmark import AXES, SENTIMENT

GIVEN, LATEST, RANDOM, NONE = "given", "latest", "random", "none"
PREFERENCE_ONLY, WITH_HISTORY = "preference_only", "with_history"
_CONDITIONS = (GIVEN, LATEST, RANDOM, NONE, PREFERENCE_ONLY)
CONDITIONS: Mapping[str, tuple[str, ...]] = {
    axis: (GIVEN, RANDOM, NONE, WITH_HISTORY) if axis == SENTIMENT else _CONDITIONS for axis in AXES
}
"""Conditions of each axis. Sentiment following uses no history except under `WITH_HISTORY`."""
CUTOFFS = (5, 10)
Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Past:
    """A user's items and their times, oldest first.

    Args:
        items: ids, also those that a model may not know.
        times: seconds since 1970.
    """

    items: tuple[str, ...]
    times: tuple[int, ...]


def read_pasts(sequences: pa.Table) -> dict[str, Past]:
    """Histories by user, from one partition of the table `sequences`."""
    return {
        row["user_id"]: Past(tuple(row["item_ids"]), tuple(int(moment.timestamp()) for moment in row["occurred_at"]))
        for row in sequences.select(["user_id", "item_ids", "occurred_at"]).to_pylist()
    }


@dataclass(frozen=True)
class Question:
    """A request to a model: a history up to a position, and a preference that may be empty."""

    past: Past
    end: int
    preference: str
    with_history: bool = True


def ask(
    bundle: Bundle,
    questions: Sequence[Question],
    targets: Sequence[str] | None = None,
    exclude_seen: bool = False,
    strength: float = 1.0,
) -> tuple[IntArray, IntArray]:
    """Put `questions` to a model.

    Args:
        targets: label of each question; an item that the model does not know is not placed.
        exclude_seen: exclude the items of the history.
        strength: factor on the steering layer's weight; 1 is the weight fitted for a request's preference.

    Returns:
        Ranks int64[Q] of the targets from 1, ties against the model, 0 where not placed or without targets; and the
        lists int64[Q, 10] of catalogue indices, -1 where fewer were found.
    """
    recommender, index = bundle.recommender, bundle.catalogue.index
    size, reach = recommender.settings.evaluation_batch_size, recommender.settings.max_history
    ranks = [np.zeros(0, dtype=np.int64)]
    lists = [np.zeros((0, LIST_LENGTH), dtype=np.int64)]
    for start in range(0, len(questions), size):
        part = questions[start : start + size]
        known = [_known(question, index) for question in part]
        labels = [index.get(target, -1) for target in targets[start : start + size]] if targets else [-1] * len(part)
        label = np.array(labels, dtype=np.int64)
        batch = make_batch(
            [items[-reach:] for items, _ in known],
            [question.preference for question in part],
            np.maximum(label, 0),
            times=[times[-reach:] for _, times in known],
            asked_at=np.array([q.past.times[min(q.end, len(q.past.times) - 1)] for q in part]),
        )
        batch = batch.with_strength(strength).to(recommender.device)
        seen = None
        if exclude_seen:
            seen = make_batch([items for items, _ in known], [""] * len(known)).history.to(recommender.device)
        found, best = recommender.ranks_and_topk(batch, LIST_LENGTH, seen)
        ranks.append(np.where(label < 0, 0, found.cpu().numpy()))
        lists.append(best.cpu().numpy())
    return np.concatenate(ranks), np.concatenate(lists)


def _known(question: Question, index: Mapping[str, int]) -> tuple[list[int], list[int]]:
    """Items of the history that the model knows, and their times."""
    if not question.with_history:
        return [], []
    past = zip(question.past.items[: question.end], question.past.times[: question.end], strict=True)
    kept = [(index[item], moment) for item, moment in past if item in index]
    return [item for item, _ in kept], [moment for _, moment in kept]


@dataclass(frozen=True)
class Answers:
    """Results of a model on the samples of one axis and split under one condition.

    Args:
        samples: rows of `preference_benchmark`, sorted by sample_id.
        ranks: int64[S], see `ask`.
        opposite_ranks: int64[S], of the target under the opposite preference; only for sentiment following.
        lists: int64[S, 10].
    """

    axis: str
    split: str
    condition: str
    samples: Sequence[Sample] = field(repr=False)
    ranks: IntArray = field(repr=False)
    opposite_ranks: IntArray | None = field(repr=False)
    lists: IntArray = field(repr=False)

    def metrics(self) -> dict[str, npt.NDArray[np.float64]]:
        """Metrics by name, float64[S] each, the axis's main metric first.

        m@k is 1 if the target is among the first k under the preference and not under its opposite;
        ``positive_recall_k`` and ``negative_miss_k`` are its two factors.
        """
        found: dict[str, npt.NDArray[np.float64]] = {}
        if self.opposite_ranks is not None:
            missed = {k: 1.0 - recall(self.opposite_ranks, k) for k in CUTOFFS}
            found |= {f"m_{k}": recall(self.ranks, k) * missed[k] for k in reversed(CUTOFFS)}
            found |= {f"negative_miss_{k}": missed[k] for k in CUTOFFS}
        ordinary = {
            f"{name}_{k}": f(self.ranks, k) for k in CUTOFFS for name, f in (("ndcg", ndcg), ("recall", recall))
        }
        if self.axis == SENTIMENT:
            return found | {f"positive_recall_{k}": ordinary[f"recall_{k}"] for k in CUTOFFS} | ordinary
        return {"ndcg_10": ordinary["ndcg_10"]} | ordinary


def main_metric(axis: str) -> str:
    """The main metric of an axis."""
    return "m_10" if axis == SENTIMENT else "ndcg_10"


def answer(
    bundle: Bundle,
    samples: Sequence[Sample],
    pasts: Mapping[str, Past],
    exclude_seen: bool = False,
    notify: Notify = silent,
) -> list[Answers]:
    """Put every sample to a model under every condition of its axis.

    Samples without another user's preference are skipped under `RANDOM` only. A user without a latest preference is
    evaluated without one, as in serving.
    """
    grouped: dict[tuple[str, str], list[Sample]] = {}
    for sample in sorted(samples, key=lambda row: (AXES.index(row["axis"]), row["split"], row["sample_id"])):
        grouped.setdefault((sample["axis"], sample["split"]), []).append(sample)
    total = sum(len(rows) * len(CONDITIONS[axis]) for (axis, _), rows in grouped.items())
    done, answers = 0, []
    for (axis, split), rows in grouped.items():
        for condition in CONDITIONS[axis]:
            kept = [row for row in rows if condition != RANDOM or row["random"] is not None]
            ranks, lists = _put(bundle, kept, pasts, condition, "preference", exclude_seen)
            opposite = None
            if axis == SENTIMENT:
                opposite, _ = _put(bundle, kept, pasts, condition, "opposite", exclude_seen)
            answers.append(Answers(axis, split, condition, kept, ranks, opposite, lists))
            done += len(rows)
            notify(done, total, f"{bundle.recipe}, {axis}, {condition}")
    return answers


def _put(
    bundle: Bundle, samples: Sequence[Sample], pasts: Mapping[str, Past], condition: str, side: str, exclude_seen: bool
) -> tuple[IntArray, IntArray]:
    column = {
        LATEST: "latest",
        RANDOM: "random" if side == "preference" else "random_opposite",
        NONE: "",
    }.get(condition, side)
    questions = [
        Question(
            past=pasts[row["history_user_id"]],
            end=row["history_end"],
            preference=(row[column] or "") if column else "",
            with_history=condition == WITH_HISTORY if row["axis"] == SENTIMENT else condition != PREFERENCE_ONLY,
        )
        for row in samples
    ]
    strength = bundle.recommender.known_weight if condition == LATEST else 1.0  # as served
    return ask(bundle, questions, [row["target_item_id"] for row in samples], exclude_seen, strength)


@dataclass(frozen=True)
class AxisResult:
    """Results of a model on one axis and split.

    Args:
        samples: number of samples.
        labels: effective number of labels, the exponential of their entropy.
        conditions: intervals of each metric by condition.
        lift: paired difference of `GIVEN` to the conditions `NONE` and `RANDOM` in the axis's main metric.
    """

    axis: str
    split: str
    samples: int
    labels: float
    conditions: Mapping[str, Mapping[str, Interval]]
    lift: Mapping[str, Paired]


def summarise(answers: Sequence[Answers]) -> list[AxisResult]:
    """Intervals and lifts per axis and split, in the order of `answers`, without axes that have no sample."""
    results = []
    for given in (found for found in answers if found.condition == GIVEN and len(found.samples)):
        same = {a.condition: a for a in answers if (a.axis, a.split) == (given.axis, given.split) and len(a.samples)}
        metric = main_metric(given.axis)
        own = dict(zip((row["sample_id"] for row in given.samples), given.metrics()[metric], strict=True))
        lift = {
            name: paired([own[row["sample_id"]] for row in same[name].samples], same[name].metrics()[metric])
            for name in (NONE, RANDOM)
            if name in same
        }
        counts = np.unique([row["target_item_id"] for row in given.samples], return_counts=True)[1]
        share = counts / counts.sum()
        results.append(
            AxisResult(
                given.axis,
                given.split,
                len(given.samples),
                float(np.exp(-(share * np.log(share)).sum())),
                {name: bootstrap_each(found.metrics()) for name, found in same.items()},
                lift,
            )
        )
    return results


def evaluation_rows(answers: Sequence[Answers]) -> list[dict[str, Any]]:
    """Rows of the table `preference_evaluations` without its partition columns."""
    rows = []
    for found in answers:
        metrics = found.metrics()
        columns = {name: metrics.get(name) for name in ("recall_5", "recall_10", "ndcg_5", "ndcg_10", "m_5", "m_10")}
        for number, sample in enumerate(found.samples):
            opposite = None if found.opposite_ranks is None else int(found.opposite_ranks[number])
            rows.append(
                {
                    "axis": found.axis,
                    "split": found.split,
                    "sample_id": sample["sample_id"],
                    "condition": found.condition,
                    "rank": int(found.ranks[number]) or None,
                    "opposite_rank": opposite or None,
                    **{name: None if values is None else float(values[number]) for name, values in columns.items()},
                }
            )
    return rows
