"""Averages and slices of the models of a day, from what `measurements` says of each user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from ray_jobs.evaluation.measurements import Measured, from_rows
from ray_jobs.evaluation.metrics import METRICS, Interval
from ray_jobs.evaluation.slices import LENGTH, TARGET
from schemas.errors import DataError
from schemas.measurements import NEXT_ITEM

PREFERENCE = "history+preference"
BASELINES = ("sasrec", "popularity")
SLICE_METRICS = ("recall_10", "ndcg_10")
HEADINGS = {
    **{f"recall_{k}": f"Recall@{k}" for k in (5, 10, 20)},
    **{f"ndcg_{k}": f"NDCG@{k}" for k in (5, 10, 20)},
    "mrr": "MRR",
}
BY_TARGET, BY_LENGTH = "target's popularity", "items in the history"
KINDS = {TARGET: BY_TARGET, LENGTH: BY_LENGTH}
"""What slices group by, for people."""


@dataclass(frozen=True, kw_only=True)
class SliceResult:
    """What a model reached on some of the users.

    Args:
        kind: what the users were grouped by, for people.
        name: the group.
        metrics: those of `SLICE_METRICS`.
    """

    kind: str
    name: str
    users: int
    metrics: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """What one model reached on one split under one condition.

    Args:
        measured: its numbers, user by user.
        slices: the same for groups of users, where they were asked for.
    """

    measured: Measured
    metrics: Mapping[str, Interval]
    slices: Sequence[SliceResult] = ()

    @property
    def model(self) -> str:
        """Name in `measurements`, with the run identity."""
        return self.measured.model

    @property
    def condition(self) -> str:
        """What the model was given."""
        return self.measured.condition

    @property
    def users(self) -> int:
        """How many were evaluated."""
        return len(self.measured)

    @property
    def recipe(self) -> str:
        """Method without the run identity."""
        return recipe_of(self.model)

    @property
    def label(self) -> str:
        """Name for people; the condition is said where it is not the history alone."""
        return f"{self.recipe} + preference" if self.condition == PREFERENCE else self.recipe


def model_name(recipe: str, identity: str, version: str = "") -> str:
    """Name of a model in `measurements`.

    Args:
        version: of histories whose targets are not those of the table sequences; such models compare with each other
            only.
    """
    return "@".join(part for part in (recipe, identity, version) if part)


def counted(dataset: str, partition: str) -> str:
    """What stands for a run identity in the name of the popularity that evaluate counts."""
    return f"{dataset}--{partition}"


def recipe_of(model: str) -> str:
    """The method in a name that `model_name` made."""
    return model.split("@")[0]


def _identity_of(model: str) -> str:
    return model.split("@")[1]


def version_of(model: str) -> str:
    """The version in a name that `model_name` made, mostly empty."""
    return "@".join(model.split("@")[2:])


def summarise(rows: pa.Table, split: str = "test") -> list[ModelResult]:
    """One result per model and condition of `split`, sorted by model and condition.

    A model that lacks a metric, because its rows are older than the metric, is left out.

    Args:
        rows: of the table `measurements`.

    Raises:
        DataError: no model has all metrics on the split.
    """
    complete = [one for one in from_rows(rows, NEXT_ITEM, split) if one.values.keys() >= set(METRICS)]
    if not complete:
        raise DataError(f"table measurements has no {split} row for this partition; run the evaluate stage first")
    return [ModelResult(measured=one, metrics=one.intervals(METRICS)) for one in complete]


def with_slices(results: Sequence[ModelResult]) -> list[ModelResult]:
    """`results` with their `slices`: by popularity of the target, then by length of the history; no empty one."""
    return [replace(result, slices=_slices(result.measured)) for result in results]


def _slices(found: Measured) -> list[SliceResult]:
    return [
        SliceResult(
            kind=KINDS.get(kind, kind),
            name=name,
            users=int(inside.sum()),
            metrics=found.intervals(SLICE_METRICS, inside),
        )
        for kind, name, inside in found.groups()
    ]


def of_model(results: Sequence[ModelResult], identity: str) -> list[ModelResult]:
    """Results of the model that was trained under `identity`, the condition it is served with first.

    A model that reads preferences is served with them.

    Raises:
        DataError: it was not evaluated; the models that were are named.
    """
    mine = [result for result in results if _identity_of(result.model).endswith(identity)]
    if not mine:
        known = ", ".join(sorted({result.model for result in results}))
        raise DataError(
            f"table measurements has no rows of the model of run {identity} (it has: {known}); run the evaluate stage"
        )
    return sorted(mine, key=lambda result: (result.condition != PREFERENCE, result.condition))


def ranked_beside(
    results: Sequence[ModelResult], own: Sequence[ModelResult], identities: Mapping[str, str], lost: str = ""
) -> list[ModelResult]:
    """Results of a recommender that lost, and of the baselines on the same histories, SASRec's before popularity's.

    Each under the condition that it is served with.

    Args:
        own: results of the model that is judged; never among the answer.
        identities: of the run's baselines by recipe, where several of the same day were evaluated.
        lost: run identity of the recommender that the baseline is registered instead of, where it is.

    Raises:
        DataError: the recommender that lost was not evaluated.
    """
    chosen = of_model(results, lost)[:1] if lost else []
    taken = {result.model for result in (*own, *chosen)}
    for recipe in BASELINES:
        identity = identities.get(recipe, "")
        if recipe == own[0].recipe and identity and _identity_of(own[0].model).endswith(identity):
            continue
        others = [
            r
            for r in results
            if r.recipe == recipe and r.model not in taken and version_of(r.model) == version_of(own[0].model)
        ]
        exact = [r for r in others if identity and _identity_of(r.model).endswith(identity)]
        chosen += (exact or others)[-1:]
    return chosen
