"""Detection and replacement of swapped items by a tiny tuned model, over several seeds.

Each seed grows a world, pre-trains a tiny base on its histories, tunes an adapter and judges both on held-out users,
beside item co-occurrence and chance. Nothing here needs a cluster; the loop is the one that Ray Train's workers run.
The world is the planted one, or ``families``, the tests' own with two families of short names (half a minute a seed).
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from pipelines.landing.planted_world.world import WorldSettings, grow_world
from ray_jobs.data.histories import Histories
from ray_jobs.denoiser import quality
from ray_jobs.denoiser.base import tiny_config, tiny_tokenizer
from ray_jobs.denoiser.lora import add_adapter
from ray_jobs.denoiser.settings import DenoiserSettings
from ray_jobs.denoiser.tuning import TuningPlan
from ray_jobs.denoiser.tuning_data import ANSWER_MIDDLE, ANSWER_OPEN, LIST_OPEN, Writer, quotable
from ray_jobs.denoiser.windows import split_windows
from ray_jobs.training.loop import fit
from tests.ray_jobs import odd_one_out

SMALL = {
    "windows": 3000,
    "heldout_share": 0.2,
    "max_title_words": 5,
    "tiny_width": 64,
    "tiny_layers": 2,
    "tiny_epochs": 10,
    "tiny_batch_size": 16,
    "tiny_learning_rate": 5e-3,
    "epochs": 30,
    "batch_size": 16,
    "learning_rate": 1.5e-2,
}
SHOWN = ("auc", "ap", "hit_1", "replacement_hit_1", "grounded", "edit_precision", "hit_1_sure", "hit_1_unsure")


def world_histories(settings: WorldSettings) -> tuple[tuple[str, ...], Histories]:
    """Titles and histories of a planted world."""
    world = grow_world(settings)
    index = {item.item_id: row for row, item in enumerate(world.items)}
    items: dict[str, list[int]] = {user.user_id: [] for user in world.users}
    for position in world.positions:
        items[position.user_id].append(index[position.item.item_id])
    lengths = np.array([len(history) for history in items.values()])
    histories = Histories(
        user_ids=tuple(items),
        items=tuple(np.array(history) for history in items.values()),
        valid_position=lengths - 2,
        test_position=lengths - 1,
        preferences=tuple({} for _ in items),
    )
    return tuple(item.title for item in world.items), histories


def one_seed(titles: Sequence[str], histories: Histories, settings: DenoiserSettings) -> dict[str, dict[str, float]]:
    """Everything for one seed: quality by method."""
    split = split_windows(histories, settings)
    texts = [LIST_OPEN, ANSWER_OPEN, ANSWER_MIDDLE, *(quotable(title, settings.max_title_words) for title in titles)]
    tokenizer = tiny_tokenizer(texts, settings.tiny_vocabulary)
    writer = Writer(tokenizer, titles, settings)
    plan = TuningPlan(tiny_config(tokenizer, settings), settings, tuple(writer.base_examples(split.tuning)), writer.pad)
    base = plan.build()
    parameters = sum(p.numel() for p in base.parameters())
    fit(base, *plan.sources(base))
    plan = TuningPlan("hub:", settings, tuple(writer.tuning_examples(split.tuning)), writer.pad)
    model: Any = add_adapter(base.model, settings)
    learner = plan.learner(model)
    state = fit(learner, *plan.sources(learner))
    report = {"tuned": quality.of_model(model, writer, histories, split.heldout)}
    with model.disable_adapter():
        report["base"] = quality.of_model(model, writer, histories, split.heldout)
    report |= quality.of_baselines(histories, split.tuning_users, len(titles), split.heldout, settings.seed)
    losses = [state.records[row]["loss"] for row in (0, -1)]
    sys.stdout.write(
        f"seed {settings.seed}: {len(split.tuning)} windows, {len(split.heldout)} held out, {parameters:,} parameters, "
        f"loss {losses[0]:.3f} -> {losses[1]:.3f}\n"
    )
    return report


def main() -> None:
    """Run the seeds and print mean and spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--world", choices=("planted", "families"), default="planted")
    parser.add_argument("--users", type=int, default=1000, help="of the planted world")
    parser.add_argument("--items", type=int, default=160, help="of the planted world")
    parser.add_argument("--noise", type=float, default=0.0, help="share of the world's own noise, which nothing marks")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--settings", type=json.loads, default={}, metavar="JSON", help="of tune_denoiser")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    started = time.monotonic()
    reports = []
    for seed in range(given.seeds):
        if given.world == "families":
            world, start = (odd_one_out.TITLES, odd_one_out.family_histories(seed=seed)), asdict(odd_one_out.SMALL)
        else:
            size = WorldSettings(users=given.users, items=given.items, noise=given.noise, seed=seed)
            world, start = world_histories(size), SMALL
        settings = TypeAdapter(DenoiserSettings).validate_python({**start, **given.settings, "seed": seed})
        reports.append(one_seed(*world, settings))
        sys.stdout.flush()
    sys.stdout.write(f"{'':14}" + "".join(f"{name:>20}" for name in SHOWN) + "\n")
    for method in reports[0]:
        cells = []
        for name in SHOWN:
            values = [report[method][name] for report in reports if name in report[method]]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.fmean(values):.3f} ± {spread:.3f}" if values else "")
        sys.stdout.write(f"{method:14}" + "".join(f"{cell:>20}" for cell in cells) + "\n")
    sys.stdout.write(f"{time.monotonic() - started:.0f} s\n")


if __name__ == "__main__":
    main()
