"""The work of `ray_jobs.stages.train`: read the data, train on Ray Train, store the bundle, log to MLflow."""

import itertools
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from infra.errors import SettingError
from infra.progress import Progress, phased
from infra.settings import Settings, load_settings
from ray_jobs import cluster
from ray_jobs.data.day_states import input_partition
from ray_jobs.data.examples import Examples, evaluation_examples, join_examples, latest_preferences
from ray_jobs.data.fusion import fused_examples
from ray_jobs.data.histories import Histories
from ray_jobs.data.recorded import at_versions
from ray_jobs.data.settings import TEACHER_KEY, training_data_settings
from ray_jobs.data.streamed_examples import (
    ROWS_PER_FILE,
    StreamedExamples,
    example_parts,
    remove_examples,
    write_examples,
)
from ray_jobs.data.training_data import TrainingData, read_training_data
from ray_jobs.recipes import recipe_class
from ray_jobs.recipes.generative.settings import ConditionedSettings
from ray_jobs.recommenders.base import Recommender
from ray_jobs.recommenders.bundle import load_bundle, read_provenance, save_bundle
from ray_jobs.recommenders.settings import RecipeSettings
from ray_jobs.registry import provenance, runs, versions
from ray_jobs.registry.requirements import pip_requirements
from ray_jobs.stages.entry import recipe_of
from ray_jobs.stages.train import STAGE
from ray_jobs.steering.fitting import fitted_layer
from ray_jobs.steering.settings import SECTION as STEERING
from ray_jobs.steering.settings import SteeringSettings
from ray_jobs.training.curves import Row, metric_rows
from ray_jobs.training.loop import TrainState
from ray_jobs.training.plan import Plan
from ray_jobs.training.ray_train import train
from ray_jobs.training.trainable import BatchSource
from ray_jobs.training.warm_start import carry_over, require_no_leak
from schemas.errors import DataError
from schemas.handoff import StageReport
from schemas.preference_benchmark import PREFERENCE_BENCHMARK
from schemas.recipes import Need, require
from schemas.sections import settings_of, stage_settings
from schemas.stage_request import StageRequest

CONTINUED = "continuation.warm_start"
"""Upstream output: the version to start from if the settings name none; ignored if it does not fit."""


def task_id(recipe: str) -> str:
    """The task that trains `recipe`."""
    return "train_baseline" if recipe == "sasrec" else "train_recommender"


def run(request: StageRequest) -> StageReport:
    """Train the requested recipe, or reuse its bundle."""
    return train_as(load_settings(), request)


def train_as(
    settings: Settings, request: StageRequest, task: str = "", name: str = "", tags: Mapping[str, str] | None = None
) -> StageReport:
    """`run` with given settings.

    Args:
        task: name under which progress is reported.
        name: of the MLflow run, instead of the default.
        tags: further tags of the MLflow run.
    """
    recipe = recipe_of(request)
    kind = recipe_class(recipe)
    own = settings_of(recipe, settings, request)
    bundle = settings.shared("bundles", request.identity().key())
    known = read_provenance(bundle)
    status = "done" if known is None else "reused"
    data = {f"training_data.{k}": str(v) for k, v in asdict(training_data_settings(settings, request)).items()}
    layer_settings = stage_settings(SteeringSettings, settings, request)
    pip_requirements(kind.packages(own, steered=layer_settings.enabled))  # what registering will need, before training
    words = {f"{STEERING}.{k}": str(v) for k, v in asdict(layer_settings).items()}
    params = {**asdict(own), **data, **words}
    shown = name or f"{recipe} {request.partition}"
    run_id = runs.find_or_start(settings, request, shown, params, {"recipe": recipe, **(tags or {})})
    with runs.finishing(run_id):
        if known is None:
            known = _train(settings, request, kind, own, layer_settings, bundle, run_id, task or task_id(recipe))
        records, curve = known["records"], known.get("curve", [])
        runs.log_metrics(run_id, metric_rows(records, curve))
        if curve:
            from ray_jobs.registry.plots import learning_curve

            title = f"Training of {recipe}, {request.dataset}, {request.partition}"
            runs.log_figure(run_id, learning_curve(records, curve, title), "plots/learning_curve.png")
    return StageReport(
        stage=STAGE,
        status=status,
        counts=known["counts"],
        outputs={"bundle_uri": bundle, "mlflow_run_id": run_id, "run_identity": request.identity().key()},
    )


def _train(
    settings: Settings,
    request: StageRequest,
    kind: type[Recommender],
    own: RecipeSettings,
    layer_settings: SteeringSettings,
    bundle: str,
    run_id: str,
    task: str,
) -> dict[str, Any]:
    recipe = kind.name
    progress = Progress(settings.home, task)
    progress.update(0, 1, "reading tables")
    how = training_data_settings(settings, request)
    reading = at_versions(settings, request, provenance.tables_of(settings, request))
    runs.log_inputs(run_id, reading.inputs)
    needs = kind.needs_with(own) | ({Need.PREFERENCES} if layer_settings.enabled else frozenset())
    data = read_training_data(settings, reading, needs)
    if not data.histories.timed():
        require(recipe, vars(own), {Need.TIMES: f"in {request.dataset} all items of a history have the same one"})
    torch.manual_seed(own.seed)
    recommender = kind(own, data.catalogue)
    recommender.fit_counts(data.histories)
    state = TrainState()
    warm_start: dict[str, Any] = {}
    counts: dict[str, float] = {"users": len(data.histories), "items": len(data.catalogue)}
    if own.warm_start and not kind.trainable:
        warnings.warn(f"{recipe}.warm_start is ignored: {recipe} learns nothing by training", stacklevel=2)
    if kind.trainable:
        progress.update(0, 1, "building training examples")
        shards = f"{settings.ray.storage.rstrip('/')}/examples/{request.identity().key()}"
        added = fused(settings, reading, own, data)
        plan = make_plan(recipe, recommender, data, settings.ray.stream_rows, shards, added)
        reference = own.warm_start or request.upstream.get(CONTINUED, "")
        if reference:
            try:
                plan, warm_start = start_from(settings, request, data.version, plan, recommender, run_id, reference)
            except DataError as error:
                if own.warm_start:
                    raise
                runs.set_tags(run_id, {"penchant.cold_start": str(error)})
        cluster.connect()
        outcome = train(
            plan,
            settings.ray,
            run_name=request.identity().key(),
            home=settings.home,
            stage=task,
            observer=partial(log_live, settings, run_id),
        )
        state = outcome.state
        remove_examples(shards)
        recommender = plan.build()
        recommender.load_trained_state(state.best)
        counts |= {
            "examples": len(plan.train),
            "with_preference": _with_preference(plan.train),
            **({} if added is None else {"fused": len(added)}),
            **({} if plan.told is None else _heard(plan.told, data.histories)),
            "steps": state.step,
            "epochs": state.epoch,
            "best_epoch": state.best_epoch,
            "valid_ndcg_10": round(state.best_score, 6),
            "loss": round(state.records[-1]["loss"], 6),
        }
        if warm_start:
            counts |= {"warm_start_items": warm_start["items"], "warm_start_numbers": warm_start["numbers"]}
    counts["parameters"] = sum(p.numel() for p in recommender.parameters() if p.requires_grad)
    if layer_settings.enabled:
        recommender.steering = fitted_layer(recommender, data.histories, layer_settings, progress.update)
        if recommender.steering is not None:
            fit = recommender.steering.fit
            counts |= {"steering_weight": fit.weight, "steering_refusal": fit.refusal, "steering_own": fit.own_weight}
    made = {
        "run_identity": request.identity().key(),
        "dataset": request.dataset,
        "partition": request.partition,
        "codebook": data.codebook,
        **({"teacher": request.upstream[TEACHER_KEY]} if Need.COLLABORATIVE_VECTORS in needs else {}),
        "data_version": data.version,
        **provenance.to_record(settings, reading, how, layer_settings),
        "counts": counts,
        "records": state.records,
        "curve": state.curve,
        **({"warm_start": warm_start} if warm_start else {}),
    }
    save_bundle(bundle, recommender, made)
    progress.update(1, 1, f"valid NDCG@10 {counts['valid_ndcg_10']:.4f}" if state.records else "counted")
    return made


def fused(settings: Settings, request: StageRequest, own: RecipeSettings, data: TrainingData) -> Examples | None:
    """The examples that the recipe's setting ``fuse`` adds from the preference benchmark's training split.

    Raises:
        SettingError: the histories are not those that the benchmark was built from.
        DataError: the benchmark is missing or does not fit.
    """
    if not isinstance(own, ConditionedSettings) or not own.fuse:
        return None
    how = training_data_settings(settings, request)
    if how.corrections != "none" or how.version:
        raise SettingError(
            "fuse needs the original histories, from which preference_benchmark was built: set "
            "training_data.corrections to none, training_data.ties to as_is and training_data.split to last, or fuse "
            "to []"
        )
    samples = input_partition(settings, request, PREFERENCE_BENCHMARK.name)
    once = fused_examples(samples, data.histories, data.catalogue, own.fuse, own.max_history)
    return join_examples([once] * own.fuse_repeats)


def start_from(
    settings: Settings,
    request: StageRequest,
    data_version: str,
    plan: Plan,
    recommender: Recommender,
    run_id: str,
    reference: str,
) -> tuple[Plan, dict[str, Any]]:
    """`plan` with the weights of the version that `reference` names, and a record of the warm start.

    The version is recorded in the run: a retry starts from the same one, even if an alias has moved.

    Raises:
        SettingError: there is no such version.
        DataError: it does not fit, or it has been trained on what this run holds out.
    """
    client = runs.connect(settings)
    recorded = client.get_run(run_id).data.tags.get(versions.WARM_START_TAG)
    version = versions.resolve(client, recorded or reference)
    with tempfile.TemporaryDirectory() as folder:
        old = load_bundle(versions.download_bundle(version, folder))
    require_no_leak(old.provenance, request, data_version)
    carried = carry_over(old.recommender, recommender)
    warm_start = {
        "version": f"{version.name}/{version.version}",
        "run_identity": old.provenance.get("run_identity", ""),
        "items": carried.items,
        "numbers": carried.numbers[0],
        "of_numbers": carried.numbers[1],
        "left": list(carried.left),
    }
    runs.set_tags(run_id, {versions.WARM_START_TAG: warm_start["version"]})
    return replace(plan, start=carried.tensors), warm_start


def log_live(settings: Settings, run_id: str, rows: Sequence[Row]) -> None:
    """Log new rows of the learning curves during training."""
    runs.connect(settings)
    runs.log_metrics(run_id, rows)


@phased("training examples", lambda plan: {"to train on": len(plan.train), "to validate on": len(plan.valid)})
def make_plan(
    recipe: str,
    recommender: Recommender,
    data: TrainingData,
    stream_rows: int = 10**9,
    shards: str = "",
    added: Examples | None = None,
) -> Plan:
    """Examples of the training and validation splits for `recommender`.

    Args:
        stream_rows: with more training examples, they are written to the folder `shards` and streamed from there.
        added: further training examples.

    Raises:
        DataError: the histories are too short for training or validation.
    """
    training = _training_examples(recommender, data, stream_rows, shards, added)
    valid = validation_examples(recommender, data)
    if not len(training) or not len(valid):
        raise DataError(
            f"{len(training)} training and {len(valid)} validation examples are in {len(data.histories)} histories: "
            "most histories need at least four items; lower the k-core settings or land more reviews"
        )
    told = recommender.told_examples(data.histories)
    if told is not None and not len(told):
        warnings.warn(
            f"nothing is said of any user at training positions, so {recipe} learns nothing from it: a summary counts "
            "where all of its reviews are before the last training position, so review_summaries.chunk_reviews must "
            "be below the length of most histories",
            stacklevel=2,
        )
    return Plan(recipe, recommender.settings, data.catalogue, training, valid, told=told)


def _training_examples(
    recommender: Recommender, data: TrainingData, stream_rows: int, shards: str, added: Examples | None
) -> Examples | StreamedExamples:
    more = [] if added is None else [added]
    several = recommender.every_prefix and recommender.crop is None
    rows = int(np.maximum(data.histories.training_ends - 1, 0).sum()) if several else len(data.histories)
    rows += sum(map(len, more))
    if rows <= stream_rows:
        own = recommender.training_examples(data.histories)
        return join_examples([own, *more]) if more else own
    parts = itertools.chain(example_parts(recommender, data.histories, ROWS_PER_FILE), more)
    written = write_examples(shards, parts, -(-rows // ROWS_PER_FILE), recommender.settings.seed)
    return written.cropped_by(recommender.crop)


def _heard(told: Examples, histories: Histories) -> dict[str, float]:
    """How much is said of users at training positions, and of how many users nothing is."""
    users = np.flatnonzero(histories.training_ends >= 2)
    return {"texts_of_users": len(told), "users_without_text": len(np.setdiff1d(users, told.users))}


def _with_preference(training: Examples | BatchSource) -> int:
    if isinstance(training, Examples):
        return sum(bool(preference) for preference in training.preferences)
    assert isinstance(training, StreamedExamples)
    return training.preferences


def validation_examples(recommender: Recommender, data: TrainingData) -> Examples:
    """The validation split, with the newest preferences if the recipe reads them."""
    examples = evaluation_examples(data.histories, "valid", recommender.settings.max_history)
    if Need.PREFERENCES in recommender.needs:
        return examples.with_preferences(latest_preferences(data.histories, examples))
    return examples
