"""The work of `ray_jobs.stages.tune_denoiser`: cut windows, tune on Ray Train, evaluate, store adapter and report."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from infra import storage
from infra.progress import Progress, phase, phased
from infra.settings import Settings, load_settings
from infra.state import read_json
from ray_jobs import cluster
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.histories import Histories
from ray_jobs.data.training_data import read_training_data
from ray_jobs.denoiser import quality
from ray_jobs.denoiser.base import load_tokenizer, save_base, tiny_config, tiny_tokenizer
from ray_jobs.denoiser.lora import save_adapter
from ray_jobs.denoiser.settings import SECTION as STAGE
from ray_jobs.denoiser.settings import TINY, DenoiserSettings
from ray_jobs.denoiser.tuning import TuningPlan
from ray_jobs.denoiser.tuning_data import ANSWER_MIDDLE, ANSWER_OPEN, LIST_OPEN, Writer, quotable
from ray_jobs.denoiser.windows import Split, split_windows
from ray_jobs.registry import runs
from ray_jobs.training.loop import TrainState
from ray_jobs.training.ray_train import train
from schemas.artifact_seal import SEAL
from schemas.errors import DataError
from schemas.handoff import StageReport
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

REPORT = "report.json"
ADAPTER = "adapter"
BASE = "base"


def run(request: StageRequest) -> StageReport:
    """Tune the requested adapter, or reuse it.

    Raises:
        SettingError: the base model is not available, or a setting does not fit.
        DataError: a table is missing, or its histories are too short for windows.
    """
    settings = load_settings()
    own = stage_settings(DenoiserSettings, settings, request)
    address = settings.shared("bundles", request.identity().key())
    status = "reused" if storage.exists(storage.join(address, REPORT)) else "done"
    run_id = runs.find_or_start(settings, request, f"denoiser {request.partition}", asdict(own))
    with runs.finishing(run_id):
        if status == "done":
            _tune(settings, request, own, address)
        with storage.local_copy(address) as folder:
            report = read_json(folder / REPORT, "delete it and run the stage again, which tunes anew", dict)
            _record(run_id, folder, report)
    scores = {f"{name}.{key}": value for name, values in report["quality"].items() for key, value in values.items()}
    return StageReport(
        stage=STAGE,
        status=status,
        counts={**report["counts"], **scores},
        outputs={
            "adapter_uri": storage.join(address, ADAPTER),
            "base": report["base"],
            "mlflow_run_id": run_id,
            "run_identity": request.identity().key(),
        },
    )


def _tune(settings: Settings, request: StageRequest, own: DenoiserSettings, address: str) -> None:
    """Pre-train a tiny base if requested, tune, evaluate; the report is written last and marks completion."""
    Progress(settings.home, STAGE).update(0, 1, "reading tables")
    tokenizer = None if own.base == TINY else load_tokenizer(own.base)
    data = read_training_data(settings, request)
    if all(title == item for title, item in zip(data.catalogue.titles, data.catalogue.item_ids, strict=True)):
        raise DataError(f"{STAGE} reads item titles, and no item of this data set has one; land an item file")
    split = split_windows(data.histories, own)
    cluster.connect()
    name = request.identity().key()
    records: dict[str, list[dict[str, float]]] = {}
    base = own.base
    if tokenizer is None:
        made = storage.join(address, BASE)
        base, records[BASE] = _make_base(settings, own, data.catalogue, split, made, f"{name}--base")
        tokenizer = load_tokenizer(base)
    writer = Writer(tokenizer, data.catalogue.titles, own)
    plan = TuningPlan(base, own, tuple(writer.tuning_examples(split.tuning)), writer.pad)
    state = train(plan, settings.ray, run_name=name, home=settings.home, stage=STAGE).state
    records[ADAPTER] = state.records
    judge: Any = ray.remote(_judge).options(
        num_cpus=settings.ray.cpus_per_worker, num_gpus=float(settings.ray.use_gpu), max_retries=2
    )
    with phase("judging on held-out windows") as found:
        found["windows"] = len(split.heldout)
        adapter = storage.join(address, ADAPTER)
        parameters, scores = ray.get(judge.remote(plan, state, writer, data.histories, split, adapter))
        scores |= quality.of_baselines(data.histories, split.tuning_users, len(data.catalogue), split.heldout, own.seed)
    counts = {
        "windows": len(split.tuning),
        "heldout_windows": len(split.heldout),
        "parameters": parameters,
        "steps": state.step,
        "epochs": state.epoch,
        "loss": round(state.records[-1]["loss"], 6),
    }
    content = {"base": base, "counts": counts, "records": records, "quality": quality.rounded(scores)}
    storage.write_json(storage.join(address, REPORT), content)
    Progress(settings.home, STAGE).update(1, 1, f"AUC {scores['tuned']['auc']:.3f}, base {scores['base']['auc']:.3f}")


@phased("pre-training a tiny base")
def _make_base(
    settings: Settings, own: DenoiserSettings, catalogue: Catalogue, split: Split, address: str, run_name: str
) -> tuple[str, list[dict[str, float]]]:
    """Pre-train the tiny base into the folder at `address`; returns its setting, and a record per epoch."""
    titles = [quotable(title, own.max_title_words) for title in catalogue.titles]
    tokenizer = tiny_tokenizer([LIST_OPEN, ANSWER_OPEN, ANSWER_MIDDLE, *titles], own.tiny_vocabulary)
    writer = Writer(tokenizer, catalogue.titles, own)
    plan = TuningPlan(tiny_config(tokenizer, own), own, tuple(writer.base_examples(split.tuning)), writer.pad)
    state = train(plan, settings.ray, run_name=run_name, home=settings.home, stage=STAGE).state
    learner = plan.build()
    learner.load_trained_state(state.trained)
    assert isinstance(learner.model, PreTrainedModel)
    with storage.new_folder(address, SEAL) as folder:
        save_base(folder, learner.model, tokenizer)
    return f"hub:{address}", state.records


def _judge(
    plan: TuningPlan, state: TrainState, writer: Writer, histories: Histories, split: Split, address: str
) -> tuple[int, dict[str, dict[str, float]]]:
    """Write the adapter, and evaluate it and its base; runs where the cluster has room for the model."""
    torch.manual_seed(plan.settings.seed)
    learner = plan.build()
    learner.load_trained_state(state.trained)
    model = learner.model
    assert isinstance(model, PeftModel)
    with storage.new_folder(address, SEAL) as folder:
        save_adapter(folder, model)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    tuned = quality.of_model(model, writer, histories, split.heldout)
    with model.disable_adapter():
        base = quality.of_model(model, writer, histories, split.heldout)
    return sum(tensor.numel() for tensor in state.trained.values()), {"tuned": tuned, "base": base}


@phased("recording the run in MLflow")
def _record(run_id: str, folder: Path, report: dict[str, Any]) -> None:
    """Log learning curves, quality, report, adapter and a tiny base to the MLflow run; a retry adds nothing."""
    curves = [
        (f"{prefix}{key}", float(record[key]), int(record["epoch"]))
        for prefix, name in (("base.", BASE), ("", ADAPTER))
        for record in report["records"].get(name, ())
        for key in ("loss", "learning_rate", "seconds")
    ]
    scores = [(f"{name}.{key}", v, 0) for name, values in report["quality"].items() for key, v in values.items()]
    runs.log_metrics(run_id, curves + scores)
    runs.log_artifacts(run_id, folder / ADAPTER, ADAPTER)
    if (folder / BASE).exists():
        runs.log_artifacts(run_id, folder / BASE, BASE)
    runs.log_json(run_id, report, REPORT)
