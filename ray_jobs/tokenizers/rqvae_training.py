"""Training of an RQ-VAE on Ray Train: deterministic under its seed, resumed from its last checkpoint."""

import dataclasses
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed
from pyarrow import fs
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from torch import Tensor

from infra.errors import SettingError
from ray_jobs.cluster import connect
from ray_jobs.tokenizers.base import FitContext, Floats
from ray_jobs.tokenizers.rqvae import RQVAE, RQVAESettings
from ray_jobs.training.ray_train import ProgressBoard, require_resources

_STATE_FILE = "state.pt"
_NO_RESTART_AFTER = 0.8


@dataclass
class State:
    """What a checkpoint holds.

    Args:
        fingerprint: of settings and training vectors.
        records: one dict per epoch.
        reused: set when the state was read from a run that had finished before; not stored.
    """

    fingerprint: str
    epoch: int = 0
    records: list[dict[str, float]] = field(default_factory=list)
    model: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    reused: bool = False


def train(settings: RQVAESettings, vectors: Floats, context: FitContext) -> State:
    """Train on standardised `vectors` float32[N, D] under ``context.run_name``.

    The same name goes on from its last checkpoint; when it has trained to its end, nothing is trained.

    Raises:
        SettingError: the cluster is too small, or the run of that name has other settings or vectors.
    """
    fingerprint = _fingerprint(settings, vectors)
    earlier = _last_state(context.ray.storage, context.run_name)
    if earlier is not None and earlier.fingerprint != fingerprint:
        raise SettingError(
            f"the Ray Train run {context.run_name} in {context.ray.storage} was made with other settings or item "
            "vectors; raise --generation to train anew"
        )
    if earlier is not None and earlier.epoch == settings.epochs:
        return dataclasses.replace(earlier, reused=True)
    connect()
    require_resources(context.ray)
    board: Any = ray.remote(num_cpus=0)(ProgressBoard).remote(context.home, context.stage)
    trainer = ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config={
            "settings": settings,
            "vectors": ray.put(vectors),
            "fingerprint": fingerprint,
            "threads": max(1, int(context.ray.cpus_per_worker)),
            "board": board,
            "after_report": context.after_report,
        },
        scaling_config=ScalingConfig(
            num_workers=context.ray.workers,
            use_gpu=context.ray.use_gpu,
            resources_per_worker={"CPU": context.ray.cpus_per_worker},
        ),
        run_config=RunConfig(  # type: ignore[call-arg]  # the stubs are those of Train V1
            name=context.run_name,
            storage_path=context.ray.storage,
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=2, controller_failure_limit=2
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            worker_runtime_env={"env_vars": {"OMP_WAIT_POLICY": "PASSIVE"}},
        ),
    )
    trainer.fit()
    ray.kill(board)
    state = _last_state(context.ray.storage, context.run_name)
    assert state is not None, f"training run {context.run_name} left no checkpoint"
    assert state.epoch == settings.epochs, f"training run {context.run_name} ended after epoch {state.epoch}"
    return state


def _fingerprint(settings: RQVAESettings, vectors: Floats) -> str:
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(settings), sort_keys=True).encode())
    digest.update(str(vectors.shape).encode())
    digest.update(vectors.tobytes())
    return digest.hexdigest()


def _last_state(storage: str, run_name: str) -> State | None:
    address = f"{storage.rstrip('/')}/{run_name}"
    filesystem, path = fs.FileSystem.from_uri(address) if "://" in address else (fs.LocalFileSystem(), address)
    if filesystem.get_file_info(f"{path}/checkpoint_manager_snapshot.json").type == fs.FileType.NotFound:
        return None
    checkpoint = ray.train.Result.from_path(path, storage_filesystem=filesystem).checkpoint
    return None if checkpoint is None else _load(checkpoint)


def _load(checkpoint: Checkpoint) -> State:
    with checkpoint.as_directory() as folder:
        return State(**torch.load(Path(folder) / _STATE_FILE, map_location="cpu", weights_only=True))


def _worker(config: dict[str, Any]) -> None:
    settings: RQVAESettings = config["settings"]
    torch.set_num_threads(config["threads"])
    device = ray.train.torch.get_device()
    vectors = torch.from_numpy(ray.get(config["vectors"]).copy()).to(device)
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    checkpoint = ray.train.get_checkpoint()
    state = State(config["fingerprint"]) if checkpoint is None else _load(checkpoint)
    after_report: Callable[[int], None] | None = config["after_report"]
    report_progress = _throttled(config["board"], settings.epochs) if rank == 0 else None

    def on_checkpoint(state: State) -> None:
        stored = {name: value for name, value in vars(state).items() if name != "reused"}
        with tempfile.TemporaryDirectory() as folder:
            if rank == 0:
                torch.save(stored, Path(folder) / _STATE_FILE)
            metrics = {"epoch": state.epoch, **state.records[-1]}
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder) if rank == 0 else None)
        if after_report is not None:
            after_report(state.epoch)

    fit(settings, vectors, state, on_checkpoint, report_progress, rank=rank, world=world)


def _throttled(board: Any, epochs: int, every_s: float = 0.5) -> Callable[[dict[str, float]], None]:
    last = 0.0

    def report(record: dict[str, float]) -> None:
        nonlocal last
        if time.monotonic() - last >= every_s or record["epoch"] == epochs:
            last = time.monotonic()
            board.update.remote(int(record["epoch"]), epochs, f"loss {record['loss']:.4f}")

    return report


def fit(
    settings: RQVAESettings,
    vectors: Tensor,
    state: State,
    on_checkpoint: Callable[[State], None] | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    *,
    rank: int = 0,
    world: int = 1,
) -> State:
    """The training loop; every random number comes from (seed, epoch), so a resumed run ends like one that was not.

    Args:
        vectors: float[N, D], standardised, the same on every worker; a worker takes every `world`-th of an epoch's
            order.
        state: where to begin; changed in place.
        on_checkpoint: called every `checkpoint_every` epochs and at the end.
        on_epoch: called with each epoch's record.
    """
    torch.manual_seed(settings.seed)
    model = RQVAE(vectors.shape[1], settings).to(vectors.device)
    if state.epoch == 0:
        model.start_codebooks(vectors, settings.seed)
        _agree(model, world)
    else:
        model.load_state_dict(state.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    if state.optimizer:
        optimizer.load_state_dict(state.optimizer)
    wrapped = ray.train.torch.prepare_model(model, move_to_device=False) if world > 1 else model
    while state.epoch < settings.epochs:
        epoch = state.epoch + 1
        record = _train_epoch(wrapped, optimizer, vectors, settings, epoch, rank, world)
        if _restarts(settings, epoch):
            record["restarted_codes"] = _restart(model, optimizer, vectors, settings.seed, epoch)
            _agree(model, world)
        state.epoch = epoch
        state.records.append(record)
        if on_epoch is not None:
            on_epoch(record)
        if epoch % settings.checkpoint_every == 0 or epoch == settings.epochs:
            state.model = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            state.optimizer = optimizer.state_dict()
            if on_checkpoint is not None:
                on_checkpoint(state)
    return state


def _train_epoch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    vectors: Tensor,
    settings: RQVAESettings,
    epoch: int,
    rank: int,
    world: int,
) -> dict[str, float]:
    order = torch.randperm(len(vectors), generator=_generator(settings.seed, epoch))
    share = -(-len(order) // world)
    mine = order.repeat(2)[rank : share * world : world].to(vectors.device)
    sums = torch.zeros(3, device=vectors.device)
    names = ("loss", "reconstruction", "quantisation")
    for rows in mine.split(settings.batch_size):
        losses = model(vectors[rows])
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        optimizer.step()
        sums += torch.stack([losses[name].detach() for name in names]) * len(rows)
    if world > 1:
        torch.distributed.all_reduce(sums)
    means = (sums / (share * world)).tolist()
    return {"epoch": epoch, **dict(zip(names, means, strict=True))}


def _restarts(settings: RQVAESettings, epoch: int) -> bool:
    due = settings.restart_every > 0 and epoch % settings.restart_every == 0
    return due and epoch <= _NO_RESTART_AFTER * settings.epochs


def _restart(model: RQVAE, optimizer: torch.optim.Optimizer, vectors: Tensor, seed: int, epoch: int) -> int:
    moved = model.restart_unused_codes(vectors, _generator(seed, -epoch))
    for codebook, codes in zip(model.codebooks, moved, strict=True):
        for moments in optimizer.state[codebook].values():
            if moments.shape == codebook.shape:
                moments[codes] = 0
    return sum(len(codes) for codes in moved)


def _agree(model: RQVAE, world: int) -> None:
    """Give every worker rank 0's codebooks."""
    if world > 1:
        for codebook in model.codebooks:
            torch.distributed.broadcast(codebook.data, 0)


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
