"""The work of `ray_jobs.tools.retrain`: train a version again from its provenance, and compare the two."""

import tempfile
from dataclasses import dataclass, replace

from mlflow.entities import Run

from infra.settings import Settings
from ray_jobs import train
from ray_jobs.data.training_data import read_training_data
from ray_jobs.evaluate import means
from ray_jobs.evaluation.evaluator import evaluate
from ray_jobs.recommenders.bundle import Bundle, load_bundle
from ray_jobs.registry import provenance, runs, versions
from ray_jobs.registry.comparison import (
    Comparison,
    compare_curves,
    compare_lists,
    compare_metrics,
    compare_weights,
)
from ray_jobs.registry.provenance import Provenance
from ray_jobs.registry.users import read_audience
from ray_jobs.stages import evaluate as evaluating
from schemas.errors import DataError
from schemas.recipes import Need
from schemas.run_identity import config_hash
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

STAGE = "retrain"
OF_TAG, VERDICT_TAG = "penchant.reproduction_of", "penchant.reproduction"


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A version that was trained again.

    Args:
        version: ``<name>/<version>``.
        run_id: the MLflow run of the reproduction.
        reused: it was trained before and is only compared now.
        steps: optimiser steps, 0 for a recipe without training.
        changed: what differs from the first training, in sentences.
    """

    version: str
    run_id: str
    reused: bool
    steps: int
    changed: tuple[str, ...]
    comparison: Comparison


def reproduce(
    settings: Settings, reference: str, tolerance: float = 0.0, users: int = 20, generation: int = 0
) -> Reproduction:
    """Train the version that `reference` names again, and compare.

    Args:
        tolerance: largest accepted absolute difference of a loss, metric, weight or score.
        users: number of users whose recommendations are compared, evenly spread.
        generation: raise it to train again although there is a reproduction.

    Raises:
        SettingError: there is no such version, it is not from the train stage, or its files are gone.
        DataError: something that it was trained from is gone; the message names it.
    """
    client = runs.connect(settings)
    found = versions.resolve(client, reference)
    with tempfile.TemporaryDirectory() as folder:
        original = load_bundle(provenance.bundle_of(found, folder))
    made = provenance.provenance_of(client, found, original)
    gone = provenance.missing_inputs(client, made)
    if gone:
        listed = "".join(f"\n- {one}" for one in gone)
        raise DataError(f"{made.version} cannot be trained again, {len(gone)} of its inputs are missing:{listed}")
    changed = tuple(provenance.changed_environment(made))
    request = made.request(
        dag=STAGE,
        generation=generation,
        upstream={"retrain.of": made.version, "retrain.with": config_hash(provenance.environment())},
    )
    trained = train.train_as(
        settings.model_copy(update={"ray": settings.ray.model_copy(update=dict(made.ray))}),
        request,
        task=STAGE,
        name=f"reproduction of {made.version}",
        tags={OF_TAG: made.version},
    )
    again, run_id = load_bundle(trained.outputs["bundle_uri"]), trained.outputs["mlflow_run_id"]
    measured = _evaluated(settings, made, request, again)
    runs.log_metrics(run_id, [(name, value, 0) for name, value in measured.items()])
    comparison = _compared(settings, client.get_run(made.run_id), request, original, again, measured, tolerance, users)
    done = Reproduction(
        version=made.version,
        run_id=run_id,
        reused=trained.status == "reused",
        steps=int(trained.counts.get("steps", 0)),
        changed=changed,
        comparison=comparison,
    )
    runs.log_json(run_id, {"version": made.version, "changed": changed, **comparison.to_dict()}, "reproduction.json")
    runs.log_text(run_id, render(done), "reproduction.md")
    runs.set_tags(run_id, {VERDICT_TAG: comparison.verdict.value})
    return done


def _evaluated(settings: Settings, made: Provenance, request: StageRequest, bundle: Bundle) -> dict[str, float]:
    """Means over users of the validation and test split, as in the evaluate stage."""
    own = (
        stage_settings(evaluating.EvaluateSettings, settings)
        if made.evaluation is None
        else evaluating.EvaluateSettings(**made.evaluation)
    )
    data = read_training_data(settings, request, {Need.PREFERENCES} if len(bundle.recommender.conditions) > 1 else ())
    results = evaluate(bundle.recommender, data.histories, ("valid", "test"), own.exclude_seen)
    bundle.recommender.release()
    return means(results)


def _compared(
    settings: Settings,
    run: Run,
    request: StageRequest,
    original: Bundle,
    again: Bundle,
    measured: dict[str, float],
    tolerance: float,
    users: int,
) -> Comparison:
    curves = [bundle.provenance.get("records", []) for bundle in (original, again)]
    chosen = read_audience(settings, replace(request, stage=STAGE), users).sample
    return Comparison(
        lines=(
            *compare_curves(curves[0], curves[1], tolerance),
            *compare_metrics(run.data.metrics, measured, tolerance),
            compare_weights(original, again, tolerance),
            *compare_lists(original, again, chosen, tolerance),
        )
    )


def render(done: Reproduction) -> str:
    """The reproduction in Markdown."""
    how = "trained before, compared now" if done.reused else f"trained in {done.steps} steps"
    notes = "".join(f"\n- changed: {one}" for one in done.changed)
    return (
        f"Reproduction of {done.version}: **{done.comparison.verdict}** ({how}; MLflow run {done.run_id})\n{notes}\n\n"
        f"{done.comparison.table()}\n"
    )
