"""The training loop on Ray Train: workers, checkpoints, resume, and reuse of finished runs."""

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import ray
import ray.train
import ray.train.torch
import torch
from pyarrow import fs
from ray.exceptions import GetTimeoutError
from ray.train import Checkpoint
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig

from infra import traces
from infra.errors import SettingError
from infra.progress import Progress, phased, speak_for
from infra.settings import RaySettings
from ray_jobs.training.curves import Row, metric_rows
from ray_jobs.training.loop import Hooks, TrainState, fit
from ray_jobs.training.trainable import BatchSource, Notify, Trainable, silent
from ray_jobs.training.workers import Workers
from schemas.addresses import filesystem_of
from schemas.artifact_seal import check_folder, seal_folder
from schemas.errors import DataError

STATE_FILE = "state.pt"
TRAIN_ANEW = "delete the folder of this run in ray.storage, and run the stage again, which trains anew"
SETTLE_S = 30.0
"""How long a finished run waits for the observer to catch up."""
Observer = Callable[[Sequence[Row]], None]
# By default glibc returns the memory of freed tensors to the system, and the next step faults every page in again.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**27),
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
}


class TrainingPlan(Protocol):
    """What a worker needs to train: small, sent once through Ray's object store."""

    def __len__(self) -> int:
        """Number of training examples; there are never more workers than that."""

    def build(self) -> Trainable:
        """The untrained module, on the CPU."""

    def sources(self, trainable: Any, notify: Notify = silent) -> tuple[BatchSource, BatchSource | None]:
        """Training batches of a worker, and validation batches if the run is evaluated.

        Args:
            trainable: the built module, on the worker's device.
        """


@dataclass(frozen=True)
class Outcome:
    """The result of `train`.

    Args:
        state: the last state, with the best tensors so far and one record per epoch.
        reused: an earlier call with this run name had already finished, so nothing was trained.
    """

    state: TrainState
    reused: bool


def save_state(folder: Path, state: TrainState) -> None:
    """Write a training state into `folder`."""
    torch.save(vars(state), folder / STATE_FILE)
    seal_folder(folder)


def load_state(checkpoint: Checkpoint) -> TrainState:
    """Read a training state.

    Raises:
        DataError: it is damaged, or in the format of an earlier release.
    """
    with checkpoint.as_directory() as folder:
        check_folder(Path(folder), TRAIN_ANEW)
        kept = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
    unknown = set(kept) - {field.name for field in fields(TrainState)}
    if unknown or (not kept["finished"] and "param_groups" in kept["optimizer"]):
        raise DataError(f"an earlier release wrote {checkpoint.path}, and this one cannot go on from it: {TRAIN_ANEW}")
    return TrainState(**kept)


class ProgressBoard:
    """Actor on the driver's machine that writes down rank 0's progress.

    Args:
        observer: called with the new rows of the learning curves at every checkpoint.
    """

    def __init__(self, home: str, stage: str, observer: Observer | None = None) -> None:
        speak_for(stage)
        self._progress = Progress(home, stage)
        self._observer = observer

    def update(self, done: int, total: int, note: str) -> None:
        """See `infra.progress.Progress.update`."""
        self._progress.update(done, total, note)

    def settled(self) -> bool:
        """True, once all earlier calls have been processed."""
        return True

    def observe(self, rows: Sequence[Row]) -> None:
        """Call the observer."""
        if self._observer is not None:
            self._observer(rows)


def _worker(config: dict[str, Any]) -> None:
    """The function that each Ray Train worker runs, a span of the stage's trace."""
    rank = ray.train.get_context().get_world_rank()
    above, facts = config["traceparent"], {"rank": rank}
    with traces.root(f"training worker {rank}", service="penchant-ray", facts=facts, parent=above):
        _work(config)


def _work(config: dict[str, Any]) -> None:
    checkpoint = ray.train.get_checkpoint()
    state = TrainState(fingerprint=config["fingerprint"]) if checkpoint is None else load_state(checkpoint)
    if state.finished:
        return
    plan: TrainingPlan = ray.get(config["plan"])
    torch.set_num_threads(config["threads"])
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    trainable = plan.build().to(ray.train.torch.get_device())
    notify = _throttled(config["board"], trainable) if rank == 0 else silent
    train, valid = plan.sources(trainable, notify)
    hook: Callable[[TrainState], None] | None = config["hook"]
    seen = len(state.records), len(state.curve)

    def on_checkpoint(state: TrainState) -> None:
        nonlocal seen
        report_state(state, rank)
        if rank == 0:
            config["board"].observe.remote(metric_rows(state.records[seen[0] :], state.curve[seen[1] :]))
            seen = len(state.records), len(state.curve)
        if hook is not None:
            hook(state)

    fit(
        trainable,
        train,
        valid,
        state=state,
        hooks=Hooks(
            on_checkpoint,
            config["on_step"] or (lambda _: None),
            due=_Every(config["checkpoint_s"]),
            stop=lambda: time.time() >= config["until"],
            notify=notify,
        ),
        workers=Workers(rank, world, config["parallel"] if trainable.can_split else "ddp"),
    )


class _Every:
    """A callable that is true if at least `seconds` have passed since it was last true, or since it was made."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._last = seconds, time.monotonic()

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


def report_state(state: TrainState, rank: int) -> None:
    """Report a worker's progress to Ray Train, with rank 0's state as the checkpoint."""
    newest = state.records[-1] if state.records else {}
    metrics = {**newest, "epoch": state.epoch, "step": state.step, "finished": state.finished}
    with tempfile.TemporaryDirectory() as folder:
        if rank == 0:
            save_state(Path(folder), state)
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder) if rank == 0 else None)


def _throttled(board: Any, trainable: Trainable) -> Notify:
    """A `Notify` that calls the board at most twice a second, and always at the end and with a validation score."""
    metric, due = trainable.metric, _Every(0.5)

    def notify(done: int, total: int, note: str) -> None:
        if due() or done >= total or (metric and metric.label in note):
            board.update.remote(done, total, note)

    return notify


def require_resources(settings: RaySettings, wait_s: float = 60.0) -> None:
    """Refuse a worker group that the cluster cannot hold, instead of waiting forever.

    Raises:
        SettingError: after `wait_s` seconds the cluster still has too few resources.
    """
    wanted = {"CPU": settings.workers * settings.cpus_per_worker, "GPU": settings.workers * float(settings.use_gpu)}
    until = time.monotonic() + wait_s
    while True:
        present = ray.cluster_resources()
        if all(present.get(name, 0.0) >= amount for name, amount in wanted.items()):
            return
        if time.monotonic() > until:
            raise SettingError(
                f"training needs {settings.workers} worker(s) with {settings.cpus_per_worker:g} CPU"
                f"{' and 1 GPU' if settings.use_gpu else ''} each, and the Ray cluster has "
                f"{present.get('CPU', 0):g} CPU and {present.get('GPU', 0):g} GPU in all: lower ray.workers or "
                "ray.cpus_per_worker, set ray.use_gpu=false, or add nodes"
            )
        time.sleep(1)


def finished_state(storage: str, run_name: str, fingerprint: str = "") -> TrainState | None:
    """The state of the run `run_name` if it has finished, else None.

    Raises:
        SettingError: the run has another fingerprint.
        DataError: its state cannot be read.
    """
    address = f"{storage.rstrip('/')}/{run_name}"
    filesystem, path = filesystem_of(address)
    if filesystem.get_file_info(f"{path}/checkpoint_manager_snapshot.json").type == fs.FileType.NotFound:
        return None
    result = ray.train.Result.from_path(path, storage_filesystem=filesystem)
    if result.checkpoint is None or not (fingerprint or (result.metrics or {}).get("finished")):
        return None
    state = load_state(result.checkpoint)
    if state.fingerprint != fingerprint:
        raise SettingError(
            f"the Ray Train run {run_name} in {storage} was made with other settings or data; raise --generation to "
            "train anew"
        )
    return state if state.finished else None


@phased("training on Ray", lambda outcome: {"steps": outcome.state.step, "epochs": outcome.state.epoch})
def train(
    plan: TrainingPlan,
    settings: RaySettings,
    *,
    run_name: str,
    home: str,
    stage: str,
    fingerprint: str = "",
    datasets: Mapping[str, Any] | None = None,
    max_failures: int = 2,
    hook: Callable[[TrainState], None] | None = None,
    on_step: Callable[[int], None] | None = None,
    time_budget_s: float | None = None,
    observer: Observer | None = None,
    wait_s: float = 60.0,
) -> Outcome:
    """Train `plan` on a worker group of the connected Ray cluster.

    After a crash of worker, controller or driver, a call with the same name and storage resumes. A finished run is not
    repeated: its recorded state is returned with ``reused``.

    Args:
        home, stage: where progress is written.
        fingerprint: hash of the inputs, if `run_name` does not identify them.
        datasets: Ray Data sets by name; workers get a shard of each and leave one CPU to Ray Data.
        max_failures: how often a lost worker group is restarted from the last checkpoint.
        hook: called on every worker after each checkpoint.
        on_step: called on every worker after each step with the number of steps taken.
        time_budget_s: how long this call may take, start-up included; it then stops with a checkpoint (after at least
            one step, and never inside an evaluation), from which the same call continues. None for no limit.
        observer: called on this machine, in a separate process, with the new rows of the learning curves at every
            checkpoint; training neither waits for it nor fails with it.
        wait_s: how long to wait for the cluster to have the required resources.

    Raises:
        SettingError: the cluster cannot hold the worker group, or the run of that name has another fingerprint.
        DataError: the last checkpoint cannot be read.
    """
    until = math.inf if time_budget_s is None else time.time() + time_budget_s
    earlier = finished_state(settings.storage, run_name, fingerprint)
    if earlier is not None:
        return Outcome(earlier, reused=True)
    settings = settings.model_copy(update={"workers": max(1, min(settings.workers, len(plan)))})
    require_resources(settings, wait_s)
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    board: Any = ray.remote(num_cpus=0)(ProgressBoard).options(label_selector=here).remote(home, stage, observer)
    config = {
        "plan": ray.put(plan),
        "threads": max(1, int(settings.cpus_per_worker)),
        "board": board,
        "hook": hook,
        "on_step": on_step,
        "parallel": settings.parallel,
        "checkpoint_s": settings.checkpoint_s,
        "until": until,
        "fingerprint": fingerprint,
        "traceparent": traces.traceparent(),
    }
    cpus = settings.cpus_per_worker
    trainer_class: Any = ray.train.torch.TorchTrainer
    trainer = trainer_class(
        _worker,
        train_loop_config=config,
        datasets=dict(datasets or {}),
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=settings.use_gpu,
            resources_per_worker={"CPU": max(0.5, cpus - 1) if datasets else cpus},
        ),
        run_config=RunConfig(
            name=run_name,
            storage_path=settings.storage,
            failure_config=FailureConfig(max_failures=max_failures, controller_failure_limit=2),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            worker_runtime_env={"env_vars": WORKER_ENVIRONMENT},
        ),
    )
    result = trainer.fit()
    with contextlib.suppress(GetTimeoutError):
        ray.get(board.settled.remote(), timeout=SETTLE_S)
    ray.kill(board)
    assert result.checkpoint is not None, f"training run {run_name} left no checkpoint"
    state = load_state(result.checkpoint)
    assert state.finished or time_budget_s is not None, (
        f"training run {run_name} ended after epoch {state.epoch} without finishing"
    )
    assert state.step > 0, f"training run {run_name} took no step"
    return Outcome(state, reused=False)
