"""Averages, slices and paired comparisons from the per-user rows of `evaluations`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.evaluation.metrics import METRICS, Interval, Paired, bootstrap_each, paired
from ray_jobs.evaluation.slices import LENGTH_BANDS, TARGET_BANDS, length_bands
from schemas.errors import DataError

PREFERENCE = "history+preference"
BASELINES = ("sasrec", "popularity")
SLICE_METRICS = ("recall_10", "ndcg_10")
HEADINGS = {
    **{f"recall_{k}": f"Recall@{k}" for k in (5, 10, 20)},
    **{f"ndcg_{k}": f"NDCG@{k}" for k in (5, 10, 20)},
    "mrr": "MRR",
}
BY_TARGET, BY_LENGTH = "target's popularity", "items in the history"


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
        model: name in `evaluations`, with the run identity.
        condition: what the model was given.
        users: how many were evaluated.
        slices: the same for groups of users, where they were asked for.
    """

    model: str
    condition: str
    users: int
    metrics: Mapping[str, Interval]
    slices: Sequence[SliceResult] = ()

    @property
    def recipe(self) -> str:
        """Method without the run identity."""
        return recipe_of(self.model)

    @property
    def label(self) -> str:
        """Name for people; the condition is said where it is not the history alone."""
        return f"{self.recipe} + preference" if self.condition == PREFERENCE else self.recipe


def model_name(recipe: str, identity: str, version: str = "") -> str:
    """Name of a model in `evaluations`.

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


def summarise(evaluations: pa.Table, split: str = "test") -> list[ModelResult]:
    """One result per model and condition of `split`, sorted by model and condition.

    A model whose rows lack a metric, because they are older than the metric, is left out.

    Raises:
        DataError: the table has no complete row of the split.
    """
    complete = evaluations.filter(pc.equal(evaluations.column("split"), split))
    for name in METRICS:
        if name not in complete.column_names:
            complete = complete.slice(0, 0)
            break
        complete = complete.filter(pc.is_valid(complete.column(name)))
    if complete.num_rows == 0:
        raise DataError(f"table evaluations has no {split} row for this partition; run the evaluate stage first")
    pairs = complete.select(["model", "condition"]).group_by(["model", "condition"]).aggregate([]).to_pylist()
    results = []
    for model, condition in sorted((pair["model"], pair["condition"]) for pair in pairs):
        rows = _rows(complete, model, condition, split)
        values = {name: _values(rows, name) for name in METRICS}
        results.append(
            ModelResult(model=model, condition=condition, users=rows.num_rows, metrics=bootstrap_each(values))
        )
    return results


def _rows(evaluations: pa.Table, model: str, condition: str, split: str) -> pa.Table:
    """Rows of one model, by user."""
    wanted = (pc.field("model") == model) & (pc.field("condition") == condition) & (pc.field("split") == split)
    return evaluations.filter(wanted).sort_by("user_id")


def _values(rows: pa.Table, name: str) -> np.ndarray:
    return rows.column(name).to_numpy().astype(np.float64)


def with_slices(evaluations: pa.Table, results: Sequence[ModelResult], split: str = "test") -> list[ModelResult]:
    """`results` with their `slices`: by popularity of the target, then by length of the history; no empty one."""
    return [
        replace(result, slices=_slices(_rows(evaluations, result.model, result.condition, split))) for result in results
    ]


def _slices(rows: pa.Table) -> list[SliceResult]:
    groups = (
        (BY_TARGET, TARGET_BANDS, rows.column("target_band").to_numpy()),
        (BY_LENGTH, LENGTH_BANDS, length_bands(rows.column("items_before").to_numpy())),
    )
    values = {name: _values(rows, name) for name in SLICE_METRICS}
    found = []
    for kind, names, bands in groups:
        for name in names:
            inside = bands == name
            if inside.any():
                metrics = bootstrap_each({metric: column[inside] for metric, column in values.items()})
                found.append(SliceResult(kind=kind, name=name, users=int(inside.sum()), metrics=metrics))
    return found


def compare(
    evaluations: pa.Table, own: ModelResult, other: ModelResult, metric: str = "ndcg_10", split: str = "test"
) -> Paired:
    """What `own` has over `other` in `metric`, over the users that both were evaluated on.

    Raises:
        DataError: there is no such user.
    """
    mine, theirs = (_rows(evaluations, result.model, result.condition, split) for result in (own, other))
    shared = pc.is_in(mine.column("user_id"), theirs.column("user_id").combine_chunks())
    both = mine.filter(shared)
    if both.num_rows == 0:
        raise DataError(f"{own.model} and {other.model} were evaluated on no user in common: run evaluate for both")
    theirs = theirs.filter(pc.is_in(theirs.column("user_id"), both.column("user_id").combine_chunks()))
    return paired(_values(both, metric), _values(theirs, metric))


def same_users(
    evaluations: pa.Table, own: ModelResult, other: ModelResult, split: str = "test"
) -> tuple[pa.Table, pa.Table]:
    """Rows of both models by user, where both were asked for the same items of the same users.

    Raises:
        DataError: they were not, because the histories have changed between the evaluations.
    """
    mine, theirs = (_rows(evaluations, result.model, result.condition, split) for result in (own, other))
    asked = ["user_id", "target_item_id"]
    if not mine.select(asked).equals(theirs.select(asked)):
        raise DataError(
            f"{own.model} and {other.model} were evaluated on other users or targets: run the evaluate stage for both "
            "on the same sequences"
        )
    return mine, theirs


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
            f"table evaluations has no rows of the model of run {identity} (it has: {known}); run the evaluate stage"
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
