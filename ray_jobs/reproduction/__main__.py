"""Reproduce published results: `make reproduce BENCHMARK=<folder>`.

Trains and evaluates recipes on the benchmark files of a folder, under each seed, with the same Ray Train loop as every
other run. With --minutes it stops after that time, and the same command resumes, so that a borrowed GPU can be used in
slices. Tables of all experiments that this or an earlier command finished are printed and written next to the results;
--table-only does no more than that.
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
from infra.settings import load_settings
from infra.state import write_text
from ray_jobs.reproduction.experiments import RECIPES, SCALES, Experiment, make_experiment
from ray_jobs.reproduction.results import MAIN, read_results

if TYPE_CHECKING:
    from ray_jobs.reproduction.runner import Runner

_LEAST_S = 20.0


def reproduce(given: argparse.Namespace) -> int:
    """Run the experiments.

    Returns:
        The number of unfinished experiments.
    """
    settings = load_settings()
    experiments = {
        dataset: [
            make_experiment(dataset, label, seed, given.scale, given.overrides, ties)
            for ties in given.ties.split(",")
            for label in given.recipes.split(",")
            for seed in given.seeds
        ]
        for dataset in given.datasets.split(",")
    }
    from ray_jobs.reproduction.benchmark_data import read_benchmark
    from ray_jobs.reproduction.runner import Runner

    changes = {"use_gpu": given.scale == "gpu", "cpus_per_worker": given.cpus, "workers": 1}
    ray = settings.ray.model_copy(update=changes)
    until = None if given.minutes is None else time.monotonic() + 60 * given.minutes
    unfinished = 0
    for dataset, wanted in experiments.items():
        runner = Runner(settings.home, ray, *read_benchmark(Path(given.folder), dataset))
        unfinished += sum(not _finished(runner, experiment, until) for experiment in wanted)
    return unfinished


def _finished(runner: "Runner", experiment: Experiment, until: float | None) -> bool:
    """Whether there is a result, after as much of the work as can be done until then."""
    from ray_jobs import cluster

    label = f"{experiment.dataset}, {experiment.label}, seed {experiment.settings.seed}"
    left = None if until is None else until - time.monotonic()
    result = runner.result(experiment)
    if result is None and (left is None or left > _LEAST_S):
        _say(f"{label}: training")
        cluster.connect()
        result = runner.run(experiment, left)
    if result is None:
        _say(f"{label}: unfinished")
        return False
    found = result.metrics[MAIN]
    _say(f"{label}: R@10 {found['recall_10'][0]:.4f} N@10 {found['ndcg_10'][0]:.4f}, seen items left out")
    return True


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
    parser.add_argument(
        "--ties", default="as_is", help="as_is, shuffled (items of the same time, where times are known), or both"
    )
    parser.add_argument("--minutes", type=float, default=None, help="stop after this time; run again to resume")
    parser.add_argument("--cpus", type=float, default=2, help="threads of the training worker")
    parser.add_argument(
        "--overrides", type=json.loads, default={}, metavar="JSON", help="e.g. '{\"sasrec.epochs\": 3}'"
    )
    parser.add_argument("--table-only", action="store_true", help="measure nothing, write the tables anew")
    given = parser.parse_args(argv)
    if not given.folder and not given.table_only:
        parser.error("--folder (or BENCHMARK) must name the folder of the benchmark files")
    try:
        unfinished = 0 if given.table_only else reproduce(given)
        from ray_jobs.reproduction.table import markdown

        folder = Path(load_settings().home) / "reproduction"
        text = markdown(read_results(folder))
    except UserError as error:
        sys.stderr.write(f"reproduce: {type(error).__name__}: {error}\n")
        return 2
    write_text(folder / "table.md", text)
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
