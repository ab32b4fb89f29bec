"""Measure what the promotion gate checks, from tables, the bundle and the outputs of the evaluate stage."""

import datetime as dt
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from mlflow.entities.model_registry import ModelVersion

from infra import storage
from infra.progress import phased
from infra.settings import Settings
from ray_jobs.data.day_states import state
from ray_jobs.data.settings import for_comparison_only
from ray_jobs.data.tables import input_version, open_table, read_table, table_exists
from ray_jobs.evaluation.exposure import LIST_LENGTH
from ray_jobs.evaluation.measurements import Measured, require_same_units
from ray_jobs.evaluation.metrics import FloatArray
from ray_jobs.evaluation.steering import GIVEN, NONE, main_metric
from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.registry import promotion
from ray_jobs.registry.promotion import Check, Decision, Slice, Words
from ray_jobs.registry.results import KINDS, PREFERENCE, ModelResult, model_name, of_model, version_of
from ray_jobs.registry.settings import PromotionSettings
from ray_jobs.registry.trained import Trained
from ray_jobs.registry.users import User, user_columns
from schemas.errors import DataError
from schemas.model_versions import CHAMPION, CHAMPION_KEY, PARTITION_TAG, registered_name
from schemas.preference_evaluations import PREFERENCE_EVALUATIONS
from schemas.sequences import SEQUENCES
from schemas.stage_request import StageRequest

METRIC = "ndcg_10"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which of a run's models is registered.

    Args:
        trained: the model to register.
        check: its comparison with the other model.
        lost: the requested recommender, if the baseline is registered instead.
        why: the check that `lost` failed.
    """

    trained: Trained
    check: Check
    lost: Trained | None = None
    why: Check | None = None


def choose(results: Sequence[ModelResult], upstream: Mapping[str, str], own: PromotionSettings) -> Choice:
    """The requested recommender, or the baseline trained beside it if that is better by more than the margin.

    Both are compared as they are served. With targets other than those of the table sequences nothing is promoted, and
    the recommender is registered for comparison.

    Args:
        results: of every model of the day.

    Raises:
        DataError: one of the two was not evaluated, or not on the same users.
    """
    recommender, baseline = Trained.of(upstream), Trained.baseline_of(upstream)
    mine = of_model(results, recommender.identity)[0]
    if baseline is None:
        note = "no baseline was trained beside it"
        return Choice(trained=recommender, check=Check(name=promotion.BASELINE, verdict=promotion.UNKNOWN, note=note))
    theirs = of_model(results, baseline.identity)[0]
    new, old = _paired(mine, theirs)
    check = promotion.beside_baseline(new, old, own.baseline_margin, mine.recipe, theirs.recipe)
    if not check.blocks or for_comparison_only(version_of(mine.model)):
        return Choice(trained=recommender, check=check)
    instead = promotion.in_place_of(check, theirs.metrics[METRIC].mean, mine.recipe, theirs.recipe)
    return Choice(trained=baseline, check=instead, lost=recommender, why=check)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A challenger with everything the gate needs.

    Args:
        everything: results of every model of the day.
        results: the challenger's results, as it is served first, then those of the models beside it.
        choice: of the challenger among the run's models.
        coverage: of the challenger's lists, None if not measured.
        champion: the champion's version, if there is one and it is not the challenger.
        version: of the challenger, empty before it is registered.
    """

    settings: Settings
    request: StageRequest
    own: PromotionSettings
    everything: Sequence[ModelResult]
    results: Sequence[ModelResult]
    choice: Choice
    coverage: float | None
    bundle: Bundle
    users: Sequence[User]
    champion: ModelVersion | None
    version: str = ""


@phased("the gate", lambda decision: {"checks": len(decision.checks)})
def judge(case: Case) -> Decision:
    """Make every check of the gate.

    Raises:
        DataError: popularity or the champion was not evaluated on the challenger's day.
    """
    popularity = next((result for result in reversed(case.results) if result.recipe == "popularity"), None)
    if popularity is None:
        raise DataError(
            "table measurements has no test rows of popularity for this partition, which the promotion gate compares "
            "with; run the evaluate stage again"
        )
    served = case.results[0]
    checks = [
        case.choice.check,
        promotion.above_popularity(served.metrics[METRIC].mean, popularity.metrics[METRIC].mean),
    ]
    data_version = version_of(served.model)
    if for_comparison_only(data_version):
        note = f"trained on histories with other targets ({data_version}), for comparison only"
        checks.append(promotion.refused("histories", note))
    elif case.champion is None:
        checks.append(Check(name=promotion.QUALITY, verdict=promotion.PASSED, note="there was no champion"))
        checks.append(_words(case, ""))
    else:
        checks += _beside(case, case.champion)
    latency = latency_ms(case.bundle, case.users, case.own.latency_requests)
    size = sum(file.size for file in storage.below(case.choice.trained.bundle_uri)) / 1e6
    checks.append(promotion.within("latency", latency, case.own.latency_ms, "ms"))
    checks.append(promotion.within("size", size, case.own.size_mb, "MB"))
    return Decision(tuple(checks))


def _beside(case: Case, champion: ModelVersion) -> list[Check]:
    """The checks against the champion on the challenger's day."""
    own, upstream = case.own, case.request.upstream
    reference = f"{champion.name}/{champion.version}"
    named = short = f"champion version {champion.version}"
    older = promotion.day(case.request.partition, champion.tags.get(PARTITION_TAG, ""), named)
    if older.blocks:
        return [older]
    mine = case.results[0]
    trained_on = upstream.get("evaluate.champion_data_version")
    if trained_on and upstream.get("evaluate.champion") == reference:
        note = (
            f"{named} was trained on histories split {trained_on!r}, the challenger on "
            f"{version_of(mine.model) or 'as they are'!r}: what one of them learned from is held out from the other; "
            "give the alias champion to a version of this split by hand once"
        )
        return [older, promotion.refused("split", note)]
    new, old = _paired(mine, _result_of(case, reference))
    unknown = int(upstream.get("evaluate.champion_unknown_targets", 0))
    if unknown:
        named += f" (which misses {unknown:,} targets that it does not know)"
    coverage = upstream.get("evaluate.champion_coverage_10")
    groups = [
        Slice(
            f"{KINDS.get(kind, kind)} {name}", int(inside.sum()), float(new[inside].mean()), float(old[inside].mean())
        )
        for kind, name, inside in mine.measured.groups()
    ]
    return [
        older,
        promotion.quality(new, old, own.margin, named),
        *_among_known(case, champion, mine.measured, new, old, named),
        promotion.coverage(case.coverage, float(coverage) if coverage else None, own.coverage_share),
        promotion.slices(groups, own.slice_share, own.slice_users),
        promotion.steering(*_lifts(case, reference), own.steering_margin, own.require_steering),
        _words(case, short),
    ]


def _words(case: Case, champion: str) -> Check:
    """The check of how far words move the lists, as evaluate measured it; `champion` is empty if there is none."""
    upstream = case.request.upstream

    def measured(role: str) -> Words | None:
        success, control = (upstream.get(f"evaluate.{role}_words_{name}") for name in ("success", "control"))
        return Words(float(success), float(control)) if success and control else None

    new, old = measured(case.choice.trained.task), measured(CHAMPION) if champion else None
    return promotion.words(new, old, case.own.words_margin, case.own.require_words, champion)


def _among_known(
    case: Case, champion: ModelVersion, mine: Measured, new: FloatArray, old: FloatArray, named: str
) -> list[Check]:
    """The check over the users that the champion's day had; none if that is everybody."""
    day = dt.date.fromisoformat(champion.tags.get(PARTITION_TAG, case.request.partition))
    opened = open_table(*input_version(case.settings, case.request, SEQUENCES.name))
    then = state(opened, SEQUENCES, day, ["user_id", "test_position"]).drop_null()
    known = pc.is_in(mine.units, then["user_id"].combine_chunks()).to_numpy(zero_copy_only=False)
    return [] if known.all() else [promotion.known_users(new, old, known, case.own.margin, named)]


def _result_of(case: Case, reference: str) -> ModelResult:
    """The champion's result on the challenger's day, under the condition that it is served with."""
    compared = case.request.upstream.get("evaluate.champion")
    if compared != reference:
        found = f"evaluate compared with {compared}" if compared else "evaluate did not get one"
        raise DataError(
            f"the champion is {reference}, and {found}: run evaluate and register again with the current champion, in "
            f'Airflow by clearing the task "champion", else with --upstream \'{{"{CHAMPION_KEY}": "{reference}"}}\' '
            "for evaluate"
        )
    name = model_name(CHAMPION, reference, version_of(case.results[0].model))
    results = [result for result in case.everything if result.model == name]
    if not results:
        raise DataError(f"table measurements has no rows of {name} for this partition; run the evaluate stage again")
    return max(results, key=lambda result: result.condition == PREFERENCE)


def _paired(one: ModelResult, other: ModelResult) -> tuple[FloatArray, FloatArray]:
    """The metric of both by user, float64[U] each.

    Raises:
        DataError: users, targets or protocol differ.
    """
    require_same_units(one.measured, other.measured)
    return one.measured.values[METRIC], other.measured.values[METRIC]


def _lifts(case: Case, champion: str) -> tuple[FloatArray | None, FloatArray | None]:
    """Lift by the preference of challenger and champion over the samples of the day that both were evaluated on."""
    uri = case.settings.table_uri(case.request.dataset, PREFERENCE_EVALUATIONS.name)
    if not table_exists(uri):
        return None, None
    # The challenger's name before it was registered, and since.
    own = [case.choice.trained.identity]
    own += [f"{registered_name(case.request.dataset)}/{case.version}"] if case.version else []
    wanted = (
        (pc.field("partition_date") == case.request.partition_date())
        & pc.field("model").isin([*own, champion])
        & pc.field("condition").isin([GIVEN, NONE])
        & (pc.field("split") == "test")
    )
    found: tuple[dict[tuple[str, str], dict[str, float]], ...] = ({}, {})
    for row in read_table(uri, filters=wanted).to_pylist():
        sample = found[row["model"] == champion].setdefault((row["axis"], row["sample_id"]), {})
        sample[row["condition"]] = row[main_metric(row["axis"])]
    lifts = [
        {key: values[GIVEN] - values[NONE] for key, values in samples.items() if len(values) == 2} for samples in found
    ]
    shared = sorted(lifts[0].keys() & lifts[1].keys())
    if not shared:
        return None, None
    new, old = (np.array([lift[key] for key in shared]) for lift in lifts)
    return new, old


def latency_ms(bundle: Bundle, users: Sequence[User], requests: int) -> float:
    """Median milliseconds of a request for ten items, over `requests` of `users`, after one warm-up."""
    taken = []
    for number in np.linspace(0, len(users) - 1, requests + 1).astype(int):
        started = time.perf_counter()
        bundle.recommend([users[number].history], [None], LIST_LENGTH, **user_columns([users[number]]))
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken[1:])
