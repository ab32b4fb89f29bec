"""What the promotion gate asks of a challenger, measured: from tables, the bundle and what evaluate handed on."""

import datetime as dt
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from mlflow.entities.model_registry import ModelVersion

from infra.progress import phased
from infra.settings import Settings
from ray_jobs.data.settings import for_comparison_only
from ray_jobs.data.tables import input_table, read_table, table_exists
from ray_jobs.evaluation.measurements import Measured, require_same_units
from ray_jobs.evaluation.metrics import FloatArray
from ray_jobs.evaluation.steering import GIVEN, NONE, main_metric
from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.registry import promotion
from ray_jobs.registry.promotion import Check, Decision, Slice, Words
from ray_jobs.registry.results import (
    KINDS,
    PREFERENCE,
    ModelResult,
    model_name,
    of_model,
    version_of,
)
from ray_jobs.registry.settings import PromotionSettings
from ray_jobs.registry.trained import Trained
from ray_jobs.registry.users import User, user_columns
from schemas.errors import DataError
from schemas.model_versions import CHAMPION, CHAMPION_KEY, PARTITION_TAG, registered_name
from schemas.preference_evaluations import PREFERENCE_EVALUATIONS
from schemas.sequences import SEQUENCES
from schemas.stage_request import StageRequest

METRIC = "ndcg_10"
LIST_LENGTH = 10


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which of a run's models is registered.

    Args:
        trained: that one.
        check: of it, beside the other one.
        lost: the recommender that was asked for, where the baseline is registered instead; `why` is the check that it
            failed.
    """

    trained: Trained
    check: Check
    lost: Trained | None = None
    why: Check | None = None


def choose(results: Sequence[ModelResult], upstream: Mapping[str, str], own: PromotionSettings) -> Choice:
    """The recommender that was asked for, or the baseline trained beside it, where that is better beyond the margin.

    Both as they are served. Where the targets are not those of the table sequences, nothing is promoted, and the
    recommender is registered for comparison.

    Args:
        results: of every model of the day.

    Raises:
        DataError: one of the two was not evaluated, or not on the same users.
    """
    asked, baseline = Trained.of(upstream), Trained.baseline_of(upstream)
    mine = of_model(results, asked.identity)[0]
    if baseline is None:
        note = "no baseline was trained beside it"
        return Choice(trained=asked, check=Check(name=promotion.BASELINE, verdict=promotion.UNKNOWN, note=note))
    theirs = of_model(results, baseline.identity)[0]
    new, old = _beside_each_other(mine, theirs)
    check = promotion.beside_baseline(new, old, own.baseline_margin, mine.recipe, theirs.recipe)
    if not check.blocks or for_comparison_only(version_of(mine.model)):
        return Choice(trained=asked, check=check)
    instead = promotion.in_place_of(check, _mean(theirs), mine.recipe, theirs.recipe)
    return Choice(trained=baseline, check=instead, lost=asked, why=check)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A challenger with everything that is known about it.

    Args:
        everything: results of every model of the day.
        results: the challenger's result first, then its other one and the baselines'.
        choice: of the challenger among the run's models.
        coverage: of the challenger's lists, None where nobody measured it.
        bundle: of the challenger.
        champion: the version that is champion and not the challenger, None where there is none.
        version: of the challenger, empty before it is made.
    """

    settings: Settings
    request: StageRequest
    own: PromotionSettings
    everything: Sequence[ModelResult]
    results: Sequence[ModelResult]
    choice: Choice
    coverage: float | None
    bundle: Bundle
    audience: Sequence[User]
    champion: ModelVersion | None
    version: str = ""


@phased("the gate", lambda decision: {"checks": len(decision.checks)})
def judge(case: Case) -> Decision:
    """Every check of the gate.

    Raises:
        DataError: popularity or the champion was not evaluated on the challenger's day.
    """
    popularity = next((result for result in reversed(case.results) if result.recipe == "popularity"), None)
    if popularity is None:
        raise DataError(
            "table measurements has no test rows of popularity for this partition, which the promotion gate compares "
            "with; run the evaluate stage again"
        )
    checks = [case.choice.check, promotion.above_popularity(_mean(case.results[0]), _mean(popularity))]
    other = version_of(case.results[0].model)
    if for_comparison_only(other):
        note = f"trained on histories with other targets ({other}), for comparison only"
        checks.append(promotion.refused("histories", note))
    elif case.champion is None:
        checks.append(Check(name=promotion.QUALITY, verdict=promotion.PASSED, note="there was no champion"))
        checks.append(_words(case, ""))
    else:
        checks += _beside(case, case.champion)
    latency = latency_ms(case.bundle, case.audience, case.own.latency_requests)
    size = sum(file.stat().st_size for file in Path(case.choice.trained.bundle_uri).rglob("*") if file.is_file()) / 1e6
    return Decision(
        (
            *checks,
            promotion.within("latency", latency, case.own.latency_ms, "ms"),
            promotion.within("size", size, case.own.size_mb, "MB"),
        )
    )


def _mean(result: ModelResult) -> float:
    return result.metrics[METRIC].mean


def _beside(case: Case, champion: ModelVersion) -> list[Check]:
    """The checks that compare with the champion on the challenger's day."""
    reference = f"{champion.name}/{champion.version}"
    named = f"champion version {champion.version}"
    older = promotion.day(case.request.partition, champion.tags.get(PARTITION_TAG, ""), named)
    if older.blocks:
        return [older]
    theirs_on = case.request.upstream.get("evaluate.champion_data_version")
    if theirs_on and case.request.upstream.get("evaluate.champion") == reference:
        mine_on = version_of(case.results[0].model) or "as they are"
        note = (
            f"{named} was trained on histories split {theirs_on!r}, the challenger on {mine_on!r}: what one of them "
            "learned from is held out from the other; give the alias champion to a version of this split by hand once"
        )
        return [older, promotion.refused("split", note)]
    result = _result_of(case, reference)
    mine = case.results[0].measured
    new, old = _beside_each_other(case.results[0], result)
    unknown = int(case.request.upstream.get("evaluate.champion_unknown_targets", 0))
    if unknown:
        named += f" (which misses {unknown:,} targets that it does not know)"
    coverage = case.request.upstream.get("evaluate.champion_coverage_10")
    own = case.own
    return [
        older,
        promotion.quality(new, old, own.margin, named),
        *_among_known(case, champion, mine, new, old, named),
        promotion.coverage(case.coverage, float(coverage) if coverage else None, own.coverage_share),
        promotion.slices(_groups(mine, new, old), own.slice_share, own.slice_users),
        promotion.steering(*_lifts(case, reference), own.steering_margin, own.require_steering),
        _words(case, f"champion version {champion.version}"),
    ]


def _words(case: Case, champion: str) -> Check:
    """The check of what evaluate measured; `champion` is empty where there is none."""
    upstream = case.request.upstream

    def measured(role: str) -> Words | None:
        success, control = (upstream.get(f"evaluate.{role}_words_{name}") for name in ("success", "control"))
        return Words(float(success), float(control)) if success and control else None

    new, old = measured(case.choice.trained.task), measured(CHAMPION) if champion else None
    return promotion.words(new, old, case.own.words_margin, case.own.require_words, champion)


def _among_known(
    case: Case, champion: ModelVersion, mine: Measured, new: FloatArray, old: FloatArray, named: str
) -> list[Check]:
    """The check of the users whom the champion's day had, too; none where that is everybody."""
    day = dt.date.fromisoformat(champion.tags.get(PARTITION_TAG, case.request.partition))
    judged = (pc.field("partition_date") == day) & pc.field("test_position").is_valid()
    then = input_table(case.settings, case.request, SEQUENCES.name, ["user_id"], judged)
    known = pc.is_in(mine.units, then["user_id"].combine_chunks()).to_numpy(zero_copy_only=False)
    return [] if known.all() else [promotion.known_users(new, old, known, case.own.margin, named)]


def _result_of(case: Case, reference: str) -> ModelResult:
    """The champion's result on the challenger's day, under the condition that it is served with."""
    compared = case.request.upstream.get("evaluate.champion")
    if compared != reference:
        said = f"evaluate compared with {compared}" if compared else "evaluate was told of none"
        raise DataError(
            f"the champion is {reference}, and {said}: run evaluate and register again with the champion that is "
            f'there, in Airflow by clearing the task "champion", else with --upstream \'{{"{CHAMPION_KEY}": '
            f'"{reference}"}}\' for evaluate'
        )
    name = model_name(CHAMPION, reference, version_of(case.results[0].model))
    found = [result for result in case.everything if result.model == name]
    if not found:
        raise DataError(f"table measurements has no rows of {name} for this partition; run the evaluate stage again")
    return max(found, key=lambda result: result.condition == PREFERENCE)


def _beside_each_other(one: ModelResult, other: ModelResult) -> tuple[FloatArray, FloatArray]:
    """The metric of both by user, float64[U] each.

    Raises:
        DataError: they were not asked for the same items of the same users by one protocol.
    """
    require_same_units(one.measured, other.measured)
    return one.measured.values[METRIC], other.measured.values[METRIC]


def _groups(mine: Measured, new: FloatArray, old: FloatArray) -> list[Slice]:
    return [
        Slice(
            f"{KINDS.get(kind, kind)} {name}", int(inside.sum()), float(new[inside].mean()), float(old[inside].mean())
        )
        for kind, name, inside in mine.groups()
    ]


def _lifts(case: Case, champion: str) -> tuple[FloatArray | None, FloatArray | None]:
    """Lift by the preference of challenger and champion over the samples that both were asked on the day."""
    uri = case.settings.table_uri(case.request.dataset, PREFERENCE_EVALUATIONS.name)
    if not table_exists(uri):
        return None, None
    own = _asked_as(case)
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


def _asked_as(case: Case) -> list[str]:
    """Names of the challenger in `preference_evaluations`: before it was registered, and since."""
    since = [f"{registered_name(case.request.dataset)}/{case.version}"] if case.version else []
    return [case.choice.trained.identity, *since]


def latency_ms(bundle: Bundle, audience: Sequence[User], requests: int) -> float:
    """Median milliseconds of recommending ten items to one reader, over `requests` readers spread over `audience`."""
    chosen = [audience[number] for number in np.linspace(0, len(audience) - 1, requests + 1).astype(int)]
    taken = []
    for reader in chosen:
        started = time.perf_counter()
        bundle.recommend([reader.history], [None], LIST_LENGTH, **user_columns([reader]))
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken[1:])
