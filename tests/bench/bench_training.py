"""How long does a training step take, by number format and kind of attention, with and without `torch.compile`?

Steps of the training loop's `Engine`, with the settings that `make reproduce` has for the recipe, on planted histories
as short as those of five-core data (a geometric number of items, mean 6.5, cut at the recipe's window) over a planted
catalogue. All variants take the same batches, one after another, so that what else the machine does meets them alike.
The first batches are left out: they compile, and choose kernels.

    python -m tests.bench.bench_training --recipe tiger --scale gpu --formats fp32 bf16 --attention all math --compile

Times are medians in milliseconds over the batches; in brackets, the middle half; "full" is the batch whose histories
all have the window's length. Attention ``all`` lets torch choose its kernel, ``math`` is two products and a softmax.
``--profile`` adds the operations that take most of the first variant's time. ``--peer`` adds, for TIGER, the T5 of
transformers with the same sizes, weights and dropout, its own loss, and the same optimiser step.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from ray_jobs.data.batches import Batch, InMemoryExamples
from ray_jobs.data.histories import Histories
from ray_jobs.recipes import recipe_class
from ray_jobs.recipes.generative.tiger import Tiger
from ray_jobs.reproduction.experiments import RECIPES, SCALES, make_experiment, recipe_of
from ray_jobs.training.engine import Engine, make_optimizer
from ray_jobs.training.plan import Plan
from ray_jobs.training.workers import SINGLE_WORKER
from tests.bench.bench_decoding import catalogue_of, hugging_face, planted_codes, spread

MEAN_LENGTH = 6.5
ATTENTION = {
    "all": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH],
    "math": [SDPBackend.MATH],
}


def planted_histories(users: int, items: int, window: int, seed: int) -> Histories:
    rng = np.random.default_rng(seed)
    lengths = rng.geometric(1 / MEAN_LENGTH, users).clip(1, window) + 1
    lengths[: users // 50] = window + 1
    nowhere = np.full(users, -1, dtype=np.int64)
    rows = tuple(rng.integers(items, size=length) for length in lengths)
    return Histories(tuple(map(str, range(users))), rows, nowhere, nowhere, ({},) * users)


class Variant:
    """A model with its optimiser."""

    def __init__(self, plan: Plan, precision: str, attention: str, compiled: bool, device: torch.device) -> None:
        self.name = f"{precision}, {attention}{', compiled' if compiled else ''}"
        self.kernels = ATTENTION[attention]
        settings = replace(plan.settings, precision=precision, compile=compiled)
        model = replace(plan, settings=settings).build().to(device).train()
        names = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
        self.engine = Engine(model, model.settings.phase(), names, SINGLE_WORKER)
        self.device = device

    def step(self, batch: Batch) -> float:
        """Seconds of a step."""
        self.wait()
        started = time.perf_counter()
        with sdpa_kernel(self.kernels):
            self.update(batch)
        self.wait()
        return time.perf_counter() - started

    def update(self, batch: Batch) -> None:
        """One optimiser step."""
        self.engine.step(batch, 1e-4)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class Peer(Variant):
    """The T5 of transformers on the same batches."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.name, self.kernels, self.device = "transformers", ATTENTION["all"], device
        self.ours = cast(Tiger, plan.build().to(device))
        settings = self.ours.settings
        self.model = hugging_face(self.ours, settings, settings.dropout).to(device).train()
        self.optimizer = make_optimizer(list(self.model.parameters()), settings.phase())

    def update(self, batch: Batch) -> None:
        """One optimiser step."""
        batch = batch.to(self.device)
        tokens, mask = self.ours.input_tokens(batch)
        labels = self.ours.tokens.ids(self.ours.codes[batch.targets])
        self.optimizer.zero_grad(set_to_none=True)
        self.model(input_ids=tokens, attention_mask=mask.long(), labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()


def full(batches: Sequence[Batch]) -> Batch:
    return max(batches, key=lambda batch: float(batch.lengths.float().mean()))


def print_operations(variant: Variant, batch: Batch) -> None:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if variant.device.type == "cuda" else [])]
    with profile(activities=activities) as seen:
        variant.step(batch)
    key = f"self_{variant.device.type}_time_total"
    print(seen.key_averages().table(sort_by=key, row_limit=20, max_name_column_width=60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    trained = [name for name in RECIPES if recipe_of(name) != "popularity"]
    parser.add_argument("--recipe", default="tiger", choices=trained)
    parser.add_argument("--scale", default="cpu", choices=sorted(SCALES))
    parser.add_argument("--formats", nargs="+", default=["fp32"], help="fp32, bf16")
    parser.add_argument("--attention", nargs="+", default=["all"], choices=sorted(ATTENTION))
    parser.add_argument("--compile", action="store_true", help="each of them compiled as well")
    parser.add_argument("--batch-size", type=int, default=0, help="0: that of the scale")
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warm", type=int, default=5, help="steps before")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--peer", action="store_true")
    given = parser.parse_args()
    if given.peer and given.recipe != "tiger":
        parser.error("--peer is for --recipe tiger")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = {f"{given.recipe}.batch_size": given.batch_size} if given.batch_size else {}
    settings = make_experiment("planted", given.recipe, given.seed, given.scale, size).settings
    codes, sizes = planted_codes(given.items, given.seed)
    catalogue = catalogue_of(codes, sizes)
    count = settings.batch_size * (given.steps + given.warm)
    histories = planted_histories(count, given.items, settings.max_history, given.seed)
    examples = recipe_class(given.recipe)(settings, catalogue).training_examples(histories)
    source = InMemoryExamples(examples).batches(settings.batch_size, given.seed)
    batches = list(itertools.islice(source, given.steps + given.warm))
    plan = Plan(given.recipe, settings, catalogue, examples, examples)
    choices = itertools.product(given.formats, given.attention, (False, True) if given.compile else (False,))
    variants = [Variant(plan, *choice, device) for choice in choices]
    variants += [Peer(plan, device)] if given.peer else []
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{vars(given)}\ntorch {torch.__version__}, {where}, {settings.batch_size} examples a step")
    times: list[list[float]] = [[] for _ in variants]
    for number, batch in enumerate(batches):
        for taken, variant in zip(times, variants, strict=True):
            seconds = variant.step(batch)
            if number >= given.warm:
                taken.append(seconds)
    print("variant | ms a step | ms full | examples/s | times as fast as the first")
    for taken, variant in zip(times, variants, strict=True):
        longest = statistics.median(variant.step(full(batches)) for _ in range(5))
        ratios = [first / own for first, own in zip(times[0], taken, strict=True)]
        print(
            f"{variant.name} | {spread(taken, 1e3)} | {longest * 1e3:.1f} | "
            f"{settings.batch_size * len(taken) / sum(taken):.0f} | {spread(ratios, digits=2)}"
        )
    if given.profile:
        print_operations(variants[0], full(batches))


if __name__ == "__main__":
    main()
