"""Averages and intervals from the per-user rows of `evaluations`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.evaluation.metrics import Interval, bootstrap
from schemas.errors import DataError

METRICS = ("recall_5", "recall_10", "ndcg_5", "ndcg_10")
PREFERENCE = "history+preference"
BASELINES = ("sasrec", "popularity")


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """What one model reached on one split under one condition.

    Args:
        model: name in `evaluations`, with the run identity.
        condition: what the model was given.
        users: how many were evaluated.
    """

    model: str
    condition: str
    users: int
    metrics: Mapping[str, Interval]

    @property
    def recipe(self) -> str:
        """Method without the run identity."""
        return recipe_of(self.model)

    @property
    def label(self) -> str:
        """Name for people; the condition is said where it is not the history alone."""
        return f"{self.recipe} + preference" if self.condition == PREFERENCE else self.recipe


def recipe_of(model: str) -> str:
    """The method in a model name of `evaluations` (``<recipe>@<run identity>``)."""
    return model.split("@", 1)[0]


def summarise(evaluations: pa.Table, split: str = "test") -> list[ModelResult]:
    """One result per model and condition of `split`, sorted by model and condition.

    Raises:
        DataError: the table has no row of the split.
    """
    rows = evaluations.filter(pc.equal(evaluations.column("split"), split))
    if rows.num_rows == 0:
        raise DataError(f"table evaluations has no {split} row for this partition; run the evaluate stage first")
    keys = list(zip(rows.column("model").to_pylist(), rows.column("condition").to_pylist(), strict=True))
    values = {name: rows.column(name).to_numpy().astype(np.float64) for name in METRICS}
    members: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(keys):
        members.setdefault(key, []).append(row)
    return [
        ModelResult(
            model=model,
            condition=condition,
            users=len(chosen),
            metrics={name: bootstrap(values[name][chosen]) for name in METRICS},
        )
        for (model, condition), chosen in sorted(members.items())
    ]


def of_model(results: Sequence[ModelResult], identity: str) -> list[ModelResult]:
    """Results of the model that was trained under `identity`, the condition it is served with first.

    A model that reads preferences is served with them.

    Raises:
        DataError: it was not evaluated; the models that were are named.
    """
    mine = [result for result in results if result.model.endswith(identity)]
    if not mine:
        known = ", ".join(sorted({result.model for result in results}))
        raise DataError(
            f"table evaluations has no rows of the model of run {identity} (it has: {known}); run the evaluate stage"
        )
    return sorted(mine, key=lambda result: (result.condition != PREFERENCE, result.condition))


def ranked_beside(results: Sequence[ModelResult], own: Sequence[ModelResult], baseline: str = "") -> list[ModelResult]:
    """The baselines' results, SASRec's before popularity's.

    Args:
        own: results of the model that is judged; never among the answer.
        baseline: run identity of the SASRec baseline, where several of the same day were evaluated.
    """
    chosen = []
    for recipe in BASELINES:
        others = [r for r in results if r.recipe == recipe and r.condition == "history" and r.model != own[0].model]
        exact = [r for r in others if baseline and r.model.endswith(baseline)]
        chosen += (exact or others)[-1:]
    return chosen
