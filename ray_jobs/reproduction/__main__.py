"""Reproduce published results, or compare recipes on your data: `make reproduce BENCHMARK=<folder>`.

Trains and evaluates recipes on the benchmark files of a folder, or on a day of a registered data set (shop@2026-01-31),
under each seed, with the same Ray Train loop as every other run. With --minutes it stops after that time, and the same
command resumes, so that a borrowed GPU can be used in slices. Tables of all experiments that this or an earlier command
finished are printed and written next to the results; --table-only does no more than that.

Runs with --scale defaults take every recipe as it is without any setting. They are compared on a page of their own,
comparison.md; --log also writes it to MLflow.
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
from ray_jobs.reproduction.experiments import COMPARED, DEFAULTS, RECIPES, SCALES, Experiment, make_experiment
from ray_jobs.reproduction.results import MAIN, read_results

if TYPE_CHECKING:
    from ray_jobs.reproduction.runner import Runner

_LEAST_S = 20.0


def reproduce(given: argparse.Namespace) -> int:
    """Run the experiments.

    Returns:
        The number of unfinished experiments.
    """
    settings, compares = load_settings(), given.scale == DEFAULTS
    experiments = {
        dataset: [
            make_experiment(dataset, label, seed, given.scale, given.overrides, ties)
            for ties in given.ties.split(",")
            for label in (given.recipes.split(",") if given.recipes else COMPARED if compares else RECIPES)
            for seed in given.seeds
        ]
        for dataset in given.datasets.split(",")
    }
    from ray_jobs.reproduction.benchmark_data import read_benchmark
    from ray_jobs.reproduction.day_data import AT, read_day
    from ray_jobs.reproduction.runner import Runner

    changes = {"use_gpu": given.scale == "gpu", "cpus_per_worker": given.cpus, "workers": 1}
    ray = settings.ray.model_copy(update=changes)
    until = None if given.minutes is None else time.monotonic() + 60 * given.minutes
    unfinished = 0
    for dataset, wanted in experiments.items():
        data = read_day(settings, dataset) if AT in dataset else read_benchmark(Path(given.folder), dataset)
        runner = Runner(settings.home, ray, *data)
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
    parser.add_argument("--datasets", default="beauty", help="comma separated, e.g. beauty,shop@2026-01-31")
    parser.add_argument("--recipes", help="comma separated; by default those of published rows, or with defaults all")
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
    parser.add_argument("--log", action="store_true", help="write the comparison to MLflow, too")
    parser.add_argument("--table-only", action="store_true", help="measure nothing, write the tables anew")
    given = parser.parse_args(argv)
    of_files = [name for name in given.datasets.split(",") if "@" not in name]
    if of_files and not given.folder and not given.table_only:
        parser.error(f"--folder (or BENCHMARK) must name the folder of the benchmark files of {', '.join(of_files)}")
    try:
        unfinished = 0 if given.table_only else reproduce(given)
        text = _pages(given.log)
    except UserError as error:
        sys.stderr.write(f"reproduce: {type(error).__name__}: {error}\n")
        return 2
    sys.stdout.write(text)
    if unfinished:
        _say(f"{unfinished} experiments are unfinished: run the same command again to resume")
    return 3 if unfinished else 0


def _pages(log: bool) -> str:
    """Write the pages of all results, and the comparison to MLflow if asked for; returns their text."""
    from ray_jobs.reproduction.comparison import comparison, log_comparison, of_defaults
    from ray_jobs.reproduction.table import markdown

    settings = load_settings()
    folder = Path(settings.home) / "reproduction"
    kept = read_results(folder)
    others = [one for one in kept if one.result.scale != DEFAULTS]
    compared = [one for one in kept if of_defaults(one.result)] if len(others) < len(kept) else []
    pages = {}
    if others or not compared:
        pages["table.md"] = markdown(others)
    if compared:
        pages["comparison.md"] = comparison(compared)
    for name, text in pages.items():
        write_text(folder / name, text)
    if log and compared:
        _say(f"logged to MLflow: {', '.join(log_comparison(settings, compared))}")
    return "\n".join(pages.values())


def _seeds(text: str) -> list[int]:
    return [int(seed) for seed in text.split(",")]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
