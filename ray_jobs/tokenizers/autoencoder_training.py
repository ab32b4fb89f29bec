"""Training of an autoencoder on Ray Train: deterministic under its seed, resumed from its last checkpoint.

Vectors in memory go to every worker whole and are shuffled whole. Streamed ones come through Ray Data, a shard per
worker and epoch, shuffled within a buffer; what must be seen at once (k-means starts, restarts of codes) sees a uniform
sample. A streamed fit leaves one CPU of each worker to Ray Data.
"""

import dataclasses
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
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
from ray_jobs.recipes.tokenizers.settings import AutoencoderSettings
from ray_jobs.tokenizers.autoencoder import Autoencoder, AutoencoderTokenizer
from ray_jobs.tokenizers.base import FitContext
from ray_jobs.tokenizers.vectors import DatasetVectors, Floats, Vectors, matrix, sampled_rows, take
from ray_jobs.training.ray_train import TRAIN_ANEW, WORKER_ENVIRONMENT, ProgressBoard, require_resources
from schemas.artifact_seal import check_folder, seal_folder

_STATE_FILE = "state.pt"
_SAMPLE_ROWS = 50_000
_SHUFFLE_BATCHES = 16
_TRAIN = "train"


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


class Examples(Protocol):
    """Standardised training vectors as one worker sees them."""

    @property
    def sample(self) -> Tensor:
        """float[n, D], the same on every worker: all of them, or as many as fit in memory."""
        ...

    def batches(self, epoch: int, size: int, seed: int) -> Iterator[Tensor]:
        """Batches float[B, D] of this worker's share of an epoch, as many on every worker; order from (seed, epoch)."""
        ...


@dataclass(frozen=True, eq=False)
class InMemory:
    """All training vectors, float[N, D]; a worker takes every `world`-th of an epoch's order."""

    sample: Tensor
    rank: int = 0
    world: int = 1

    def batches(self, epoch: int, size: int, seed: int) -> Iterator[Tensor]:
        """See `Examples.batches`."""
        order = torch.randperm(len(self.sample), generator=torch.Generator().manual_seed(_mixed(seed, epoch)))
        share = -(-len(order) // self.world)
        mine = order.repeat(1 + self.world)[self.rank : share * self.world : self.world].to(self.sample.device)
        return (self.sample[rows] for rows in mine.split(size))


@dataclass(frozen=True, eq=False)
class Streamed:
    """This worker's shard of a Ray Data set with a column ``vector``, standardised on the way."""

    shard: Any
    sample: Tensor
    mean: Floats
    scale: Floats

    def batches(self, epoch: int, size: int, seed: int) -> Iterator[Tensor]:
        """See `Examples.batches`."""
        read = self.shard.iter_batches(
            batch_size=size,
            batch_format="pyarrow",
            local_shuffle_buffer_size=size * _SHUFFLE_BATCHES,
            local_shuffle_seed=_mixed(seed, epoch) % 2**32,
        )
        for batch in read:
            yield torch.from_numpy((matrix(batch["vector"]) - self.mean) / self.scale).to(self.sample.device)


def train(recipe: AutoencoderTokenizer, vectors: Vectors, moments: tuple[Floats, Floats], context: FitContext) -> State:
    """Train the module of `recipe` on the training items of `vectors` under ``context.run_name``.

    The same name goes on from its last checkpoint; when it has trained to its end, nothing is trained.

    Args:
        moments: mean and scale float32[D] that standardise the vectors.

    Raises:
        SettingError: the cluster is too small, or the run of that name has other settings or vectors.
    """
    settings = recipe.settings
    fingerprint = _fingerprint(settings, vectors, context)
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
    size = _SAMPLE_ROWS if vectors.streamed else vectors.shape[0]
    mean, scale = moments
    sample = (take(vectors, sampled_rows(context.training, size, settings.seed)) - mean) / scale
    cpus = context.ray.cpus_per_worker
    datasets: dict[str, Any] = (
        {_TRAIN: vectors.dataset(context.training)} if isinstance(vectors, DatasetVectors) else {}
    )
    trainer = ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config={
            "recipe": recipe,
            "sample": ray.put(sample),
            "moments": moments if datasets else None,
            "fingerprint": fingerprint,
            "threads": max(1, int(cpus)),
            "board": board,
            "after_report": context.after_report,
        },
        datasets=datasets,
        scaling_config=ScalingConfig(
            num_workers=context.ray.workers,
            use_gpu=context.ray.use_gpu,
            resources_per_worker={"CPU": max(0.5, cpus - 1) if datasets else cpus},
        ),
        run_config=RunConfig(  # type: ignore[call-arg]  # the stubs are those of Train V1
            name=context.run_name,
            storage_path=context.ray.storage,
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=2, controller_failure_limit=2
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            worker_runtime_env={"env_vars": WORKER_ENVIRONMENT},
        ),
    )
    trainer.fit()
    ray.kill(board)
    state = _last_state(context.ray.storage, context.run_name)
    assert state is not None, f"training run {context.run_name} left no checkpoint"
    assert state.epoch == settings.epochs, f"training run {context.run_name} ended after epoch {state.epoch}"
    return state


def _fingerprint(settings: AutoencoderSettings, vectors: Vectors, context: FitContext) -> str:
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(settings), sort_keys=True).encode())
    digest.update(str((int(context.training.sum()), vectors.shape[1])).encode())
    for _, block in vectors.blocks(context.training):
        digest.update(np.ascontiguousarray(block).tobytes())
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
        check_folder(Path(folder), TRAIN_ANEW)
        return State(**torch.load(Path(folder) / _STATE_FILE, map_location="cpu", weights_only=True))


def _worker(config: dict[str, Any]) -> None:
    recipe: AutoencoderTokenizer = config["recipe"]
    torch.set_num_threads(config["threads"])
    sample = torch.from_numpy(ray.get(config["sample"]).copy()).to(ray.train.torch.get_device())
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    moments: tuple[Floats, Floats] | None = config["moments"]
    examples: Examples = InMemory(sample, rank, world)
    if moments is not None:
        examples = Streamed(ray.train.get_dataset_shard(_TRAIN), sample, *moments)
    checkpoint = ray.train.get_checkpoint()
    state = State(config["fingerprint"]) if checkpoint is None else _load(checkpoint)
    after_report: Callable[[int], None] | None = config["after_report"]
    report_progress = _throttled(config["board"], recipe.settings.epochs) if rank == 0 else None

    def on_checkpoint(state: State) -> None:
        stored = {name: value for name, value in vars(state).items() if name != "reused"}
        with tempfile.TemporaryDirectory() as folder:
            if rank == 0:
                torch.save(stored, Path(folder) / _STATE_FILE)
                seal_folder(Path(folder))
            metrics = {"epoch": state.epoch, **state.records[-1]}
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder) if rank == 0 else None)
        if after_report is not None:
            after_report(state.epoch)

    fit(recipe, examples, state, on_checkpoint, report_progress, world=world)


def _throttled(board: Any, epochs: int, every_s: float = 0.5) -> Callable[[dict[str, float]], None]:
    last = 0.0

    def report(record: dict[str, float]) -> None:
        nonlocal last
        if time.monotonic() - last >= every_s or record["epoch"] == epochs:
            last = time.monotonic()
            board.update.remote(int(record["epoch"]), epochs, f"loss {record['loss']:.4f}")

    return report


def fit(
    recipe: AutoencoderTokenizer,
    examples: Examples,
    state: State,
    on_checkpoint: Callable[[State], None] | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    *,
    world: int = 1,
) -> State:
    """The training loop; every random number comes from (seed, epoch), so a resumed run ends like one that was not.

    Args:
        state: where to begin; changed in place.
        on_checkpoint: called every `checkpoint_every` epochs and at the end.
        on_epoch: called with each epoch's record.
        world: how many workers run this loop together.
    """
    settings = recipe.settings
    torch.manual_seed(settings.seed)
    sample = examples.sample
    module = recipe.build(sample.shape[1]).to(sample.device)
    if state.epoch == 0:
        module.start(sample)
        _agree(module, world)
    else:
        module.load_state_dict(state.model)
    optimizer = torch.optim.AdamW(module.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    if state.optimizer:
        optimizer.load_state_dict(state.optimizer)
    wrapped = ray.train.torch.prepare_model(module, move_to_device=False) if world > 1 else module
    while state.epoch < settings.epochs:
        epoch = state.epoch + 1
        batches = examples.batches(epoch, settings.batch_size, settings.seed)
        record = {"epoch": epoch, **_train_epoch(wrapped, module.losses, optimizer, batches, world)}
        changed = module.end_epoch(epoch, sample, optimizer)
        if changed:
            record.update(changed)
            _agree(module, world)
        state.epoch = epoch
        state.records.append(record)
        if on_epoch is not None:
            on_epoch(record)
        if epoch % settings.checkpoint_every == 0 or epoch == settings.epochs:
            state.model = {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
            state.optimizer = optimizer.state_dict()
            if on_checkpoint is not None:
                on_checkpoint(state)
    return state


def _train_epoch(
    module: torch.nn.Module,
    names: tuple[str, ...],
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Tensor],
    world: int,
) -> dict[str, float]:
    """One pass; means of the named losses over the rows of all workers."""
    sums = torch.zeros(len(names) + 1)
    for batch in batches:
        losses = module(batch)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        optimizer.step()
        values = torch.stack([losses[name].detach() for name in names] + [losses["loss"].new_ones(())])
        sums = sums.to(values.device) + values * len(batch)
    if world > 1:
        torch.distributed.all_reduce(sums)
    *totals, rows = sums.tolist()
    return {name: total / rows for name, total in zip(names, totals, strict=True)}


def _agree(module: Autoencoder, world: int) -> None:
    """Give every worker rank 0's parameters."""
    if world > 1:
        for parameter in module.parameters():
            torch.distributed.broadcast(parameter.data, 0)


def _mixed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % 2**63
