"""Reproduce published results: `make reproduce BENCHMARK=<folder>`.

Trains and evaluates popularity, SASRec, HSTU, BERT4Rec and TIGER on the benchmark files of a folder, under each seed,
with the same Ray Train loop as every other run. With --minutes it stops after that time, and the same command resumes,
so that a borrowed GPU can be used in slices. The table of all finished experiments is printed and written next to the
results.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import UserError
from infra.settings import RaySettings, load_settings
from ray_jobs.reproduction.experiments import RECIPES, SCALES, make_experiment
from ray_jobs.reproduction.table import markdown

if TYPE_CHECKING:
    from ray_jobs.reproduction.runner import Result

_LEAST_S = 20.0


def reproduce(given: argparse.Namespace) -> "tuple[list[Result], int]":
    """Run the experiments.

    Returns:
        The results, and the number of unfinished experiments.
    """
    settings = load_settings()
    experiments = {
        dataset: [
            make_experiment(dataset, label, seed, given.scale, given.overrides)
            for label in given.recipes.split(",")
            for seed in given.seeds
        ]
        for dataset in given.datasets.split(",")
    }
    from ray_jobs import cluster
    from ray_jobs.reproduction.benchmark_data import read_benchmark
    from ray_jobs.reproduction.runner import Runner

    ray = RaySettings(storage=settings.ray.storage, use_gpu=given.scale == "gpu", cpus_per_worker=given.cpus, workers=1)
    until = None if given.minutes is None else time.monotonic() + 60 * given.minutes
    results, unfinished = [], 0
    for dataset, wanted in experiments.items():
        catalogue, histories = read_benchmark(Path(given.folder), dataset)
        runner = Runner(settings.home, ray, catalogue, histories)
        for experiment in wanted:
            label = f"{dataset}, {experiment.label}, seed {experiment.settings.seed}"
            left = None if until is None else until - time.monotonic()
            result = runner.result(experiment)
            if result is None and (left is None or left > _LEAST_S):
                _say(f"{label}: training")
                cluster.connect()
                result = runner.run(experiment, left)
            if result is None:
                unfinished += 1
                _say(f"{label}: unfinished")
                continue
            results.append(result)
            found = result.metrics["unseen"]
            words = f"R@10 {found['recall_10'][0]:.4f} N@10 {found['ndcg_10'][0]:.4f}, seen items left out"
            _say(f"{label}: {words}")
    return results, unfinished


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; status 0 if all is measured, 3 if the time was up before, 2 for a wrong setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", default=os.environ.get("BENCHMARK"), help="folder with beauty.txt.gz, ...; default $BENCHMARK"
    )
    parser.add_argument("--datasets", default="beauty", help="comma separated, e.g. beauty,sports,toys")
    parser.add_argument("--recipes", default=",".join(RECIPES), help="comma separated")
    parser.add_argument("--seeds", type=_seeds, default="0", help="comma separated")
    parser.add_argument("--scale", default="cpu", choices=sorted(SCALES), help="sizes of the models, and the device")
    parser.add_argument("--minutes", type=float, default=None, help="stop after this time; run again to resume")
    parser.add_argument("--cpus", type=float, default=2, help="threads of the training worker")
    parser.add_argument(
        "--overrides", type=json.loads, default={}, metavar="JSON", help="e.g. '{\"sasrec.epochs\": 3}'"
    )
    given = parser.parse_args(argv)
    if not given.folder:
        parser.error("--folder (or BENCHMARK) must name the folder of the benchmark files")
    try:
        results, unfinished = reproduce(given)
    except UserError as error:
        sys.stderr.write(f"reproduce: {type(error).__name__}: {error}\n")
        return 2
    text = markdown(results)
    path = Path(load_settings().home) / "reproduction" / "table.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    sys.stdout.write(text)
    if unfinished:
        _say(f"{unfinished} experiments are unfinished: run the same command again to resume")
    return 3 if unfinished else 0


def _seeds(text: str) -> list[int]:
    return [int(seed) for seed in text.split(",")]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
