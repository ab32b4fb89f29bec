"""Train a registered version again from what it was made of, and compare.

``python -m ray_jobs.retrain --model penchant-shop/3`` reads the tables at the versions that the model read, with its
settings, codebook and the version it began with, trains under a run of its own, evaluates in the same way and sets the
two side by side. Nothing is registered and no alias moves. The same command again attaches to the reproduction that is
there. The exit status is 0 when the two agree, 1 when they differ beyond the tolerance, 2 when something is gone.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mlflow.entities import Run

from infra.settings import Settings, load_settings, stage_settings
from ray_jobs import train
from ray_jobs.data.training_data import read_training_data
from ray_jobs.evaluate import EvaluateSettings, means
from ray_jobs.evaluation.evaluator import evaluate
from ray_jobs.recommenders import recipe_class
from ray_jobs.recommenders.bundle import Bundle, load_bundle
from ray_jobs.registry import provenance, runs, versions
from ray_jobs.registry.audience import audience_of
from ray_jobs.registry.comparison import (
    Comparison,
    Verdict,
    compare_curves,
    compare_lists,
    compare_metrics,
    compare_weights,
)
from ray_jobs.registry.provenance import Made
from schemas.errors import DataError
from schemas.run_identity import config_hash
from schemas.stage_request import StageRequest

STAGE = "retrain"
OF_TAG, VERDICT_TAG = "penchant.reproduction_of", "penchant.reproduction"


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A version that was trained again.

    Args:
        version: ``<name>/<version>``.
        run_id: the MLflow run of the reproduction.
        reused: it had been trained before, and was only compared now.
        steps: optimiser steps that it took, 0 for a recipe that learns nothing by training.
        changed: what was not as it was, in sentences.
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
        tolerance: largest absolute difference of a loss, metric, weight or score that is no failure.
        users: how many users' recommendations are compared, spread evenly.
        generation: raise it to train once more although there is a reproduction.

    Raises:
        SettingError: there is no such version, it was not made by the train stage, or its files are gone.
        DataError: something that it was made of is gone; each is named.
    """
    client = runs.connect(settings)
    found = versions.resolve(client, reference)
    with tempfile.TemporaryDirectory() as folder:
        original = load_bundle(provenance.bundle_of(found, folder))
    made = provenance.of_version(client, found, original)
    gone = provenance.gone(client, made)
    if gone:
        listed = "".join(f"\n- {told}" for told in gone)
        raise DataError(f"{made.version} cannot be trained again, {len(gone)} of what it was made of is gone:{listed}")
    changed = tuple(provenance.changed(made))
    request = made.request(
        dag=STAGE,
        generation=generation,
        upstream={"retrain.of": made.version, "retrain.with": config_hash(provenance.environment())},
    )
    trained = train.train_as(
        settings.model_copy(update={"ray": made.ray_settings(settings.ray)}),
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


def _evaluated(settings: Settings, made: Made, request: StageRequest, bundle: Bundle) -> dict[str, float]:
    """Means over users of the validation and test split, as the evaluate stage has them."""
    own = (
        stage_settings(EvaluateSettings, "evaluate", settings)
        if made.evaluation is None
        else EvaluateSettings(**made.evaluation)
    )
    kind = recipe_class(made.recipe)
    data = read_training_data(settings, request, codes=False, preferences=kind.signals.preferences)
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
    audience = audience_of(settings, request)
    chosen = [audience[i] for i in np.unique(np.linspace(0, len(audience) - 1, users).astype(int))]
    return Comparison(
        lines=(
            *compare_curves(curves[0], curves[1], tolerance),
            *compare_metrics(run.data.metrics, measured, tolerance),
            compare_weights(original, again, tolerance),
            *compare_lists(original, again, chosen, tolerance),
        )
    )


def render(done: Reproduction) -> str:
    """The reproduction for people, in Markdown."""
    told = "trained before, compared now" if done.reused else f"trained in {done.steps} steps"
    notes = "".join(f"\n- not as it was: {one}" for one in done.changed)
    return (
        f"Reproduction of {done.version}: **{done.comparison.verdict}** ({told}; MLflow run {done.run_id})\n{notes}\n\n"
        f"{done.comparison.table()}\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; see the module for the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="<name>/<version> or <name>@<alias>, e.g. penchant-shop/3")
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="largest difference that is no failure; on GPUs some 1e-3"
    )
    parser.add_argument("--users", type=int, default=20, help="users whose recommendations are compared")
    parser.add_argument("--generation", type=int, default=0, help="raise it to train once more")
    given = parser.parse_args(argv)
    if given.users < 1 or given.tolerance < 0:
        parser.error("--users has to be at least 1, and --tolerance not below 0")
    try:
        done = reproduce(load_settings(), given.model, given.tolerance, given.users, given.generation)
    except ValueError as error:
        sys.stderr.write(f"{STAGE}: {type(error).__name__}: {error}\n")
        return 2
    sys.stdout.write(f"{render(done)}")
    return int(done.comparison.verdict is Verdict.DIFFERS)


if __name__ == "__main__":
    raise SystemExit(main())
