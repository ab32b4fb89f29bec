"""Averages and slices of a day's models, from the table `measurements`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from infra.settings import Settings
from ray_jobs.data.tables import input_table
from ray_jobs.evaluation.measurements import Measured, from_rows, objection
from ray_jobs.evaluation.metrics import METRICS, Interval
from ray_jobs.evaluation.slices import LENGTH, TARGET
from schemas.errors import DataError
from schemas.measurements import MEASUREMENTS, NEXT_ITEM
from schemas.stage_request import StageRequest

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
"""Kinds of slices, for people."""


@dataclass(frozen=True, kw_only=True)
class SliceResult:
    """Results of a model for a group of users.

    Args:
        kind: by what the users were grouped, for people.
        name: of the group.
        metrics: those of `SLICE_METRICS`.
    """

    kind: str
    name: str
    users: int
    metrics: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """Results of one model on one split under one condition.

    Args:
        measured: per user.
        slices: the same for groups of users, see `with_slices`.
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
        """The input of the model, such as `PREFERENCE`."""
        return self.measured.condition

    @property
    def users(self) -> int:
        """Number of evaluated users."""
        return len(self.measured)

    @property
    def recipe(self) -> str:
        """Method without the run identity."""
        return self.model.split("@")[0]

    @property
    def label(self) -> str:
        """Name for people."""
        return f"{self.recipe} + preference" if self.condition == PREFERENCE else self.recipe

    def is_of(self, identity: str) -> bool:
        """Whether the model was trained under that run identity."""
        return bool(identity) and self.model.split("@")[1].endswith(identity)


def model_name(recipe: str, identity: str, version: str = "") -> str:
    """Name of a model in `measurements`.

    Args:
        version: of histories with other targets than the table sequences; such models compare only with each other.
    """
    return "@".join(part for part in (recipe, identity, version) if part)


def counted(dataset: str, partition: str) -> str:
    """The run identity of popularity, which the evaluate stage counts without a run."""
    return f"{dataset}--{partition}"


def version_of(model: str) -> str:
    """The version in a name of `model_name`, mostly empty."""
    return "@".join(model.split("@")[2:])


def read_results(settings: Settings, request: StageRequest) -> list[ModelResult]:
    """`summarise` of the request's day, of which only the rows of the task and the test split are read.

    Raises:
        DataError: no model was evaluated on the day.
    """
    day = pc.field("partition_date") == request.partition_date()
    wanted = day & (pc.field("task") == NEXT_ITEM) & (pc.field("split") == "test")
    return summarise(input_table(settings, request, MEASUREMENTS.name, None, wanted))


def summarise(rows: pa.Table, split: str = "test") -> list[ModelResult]:
    """One result per model and condition of `split`, sorted by model and condition.

    Models without a metric, because their rows are older than it, are skipped.

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
    """`results` with their slices by popularity of the target and by length of the history, without empty ones."""
    return [
        replace(
            result,
            slices=[
                SliceResult(
                    kind=KINDS.get(kind, kind),
                    name=name,
                    users=int(inside.sum()),
                    metrics=result.measured.intervals(SLICE_METRICS, inside),
                )
                for kind, name, inside in result.measured.groups()
            ],
        )
        for result in results
    ]


def of_model(results: Sequence[ModelResult], identity: str) -> list[ModelResult]:
    """Results of the model with that run identity, as it is served (with preferences if it reads them) first.

    Raises:
        DataError: it was not evaluated; the message names the models that were.
    """
    mine = [result for result in results if result.is_of(identity)]
    if not mine:
        known = ", ".join(sorted({result.model for result in results}))
        raise DataError(
            f"table measurements has no rows of the model of run {identity} (it has: {known}); run the evaluate stage"
        )
    return sorted(mine, key=lambda result: (result.condition != PREFERENCE, result.condition))


def ranked_beside(
    results: Sequence[ModelResult], own: Sequence[ModelResult], identities: Mapping[str, str], lost: str = ""
) -> list[ModelResult]:
    """Results to show beside a model: a recommender that lost to it, and the baselines on the same histories.

    Args:
        own: results of the model; not repeated.
        identities: run identities of the baselines by recipe; they decide if several were evaluated.
        lost: run identity of the recommender in whose place the model is registered.

    Raises:
        DataError: the recommender that lost was not evaluated.
    """
    chosen = of_model(results, lost)[:1] if lost else []
    taken = {result.model for result in (*own, *chosen)}
    for recipe in BASELINES:
        identity = identities.get(recipe, "")
        if recipe == own[0].recipe and own[0].is_of(identity):
            continue
        others = [
            r
            for r in results
            if r.recipe == recipe and r.model not in taken and version_of(r.model) == version_of(own[0].model)
        ]
        # The others may be left of an earlier run on other histories.
        alike = [r for r in others if not objection(own[0].measured, r.measured)]
        chosen += ([r for r in others if r.is_of(identity)] or alike)[-1:]
    return chosen


def results_of_version(
    everything: Sequence[ModelResult], identity: str, request: StageRequest, baseline: str, lost: str = ""
) -> tuple[list[ModelResult], list[ModelResult]]:
    """Results of the model with run identity `identity`, and those to show beside it.

    Args:
        baseline: run identity of the day's SASRec baseline, if any.
        lost: see `ranked_beside`.

    Raises:
        DataError: one of the models was not evaluated.
    """
    own = of_model(everything, identity)
    identities = {"sasrec": baseline, "popularity": counted(request.dataset, request.partition)}
    return own, ranked_beside(everything, own, identities, lost)
