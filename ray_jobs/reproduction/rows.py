"""Results of the same experiment under several seeds as one row of a table."""

import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from infra.errors import SettingError
from ray_jobs.evaluation.metrics import FloatArray, Interval, bootstrap_each, per_user
from ray_jobs.recipes import settings_class
from ray_jobs.reproduction.experiments import DEFAULTS, LEAKY_POPULARITY, RANDOM, recipe_of
from ray_jobs.reproduction.published import METRICS
from ray_jobs.reproduction.results import MAIN, Kept, Result, ranks_path
from schemas.run_identity import config_hash

_NAMES = {LEAKY_POPULARITY: "popularity, held-out items counted", RANDOM: "random order"}


@dataclass(frozen=True)
class Row:
    """The newest result of each seed, by seed."""

    kept: Sequence[Kept]

    @property
    def results(self) -> list[Result]:
        """The results, by seed."""
        return [kept.result for kept in self.kept]

    @property
    def first(self) -> Result:
        """The one whose seed is lowest."""
        return self.kept[0].result

    @property
    def name(self) -> str:
        """The recipe, and how this row differs from its preset."""
        one = self.first
        parts = [_NAMES.get(one.label, one.label)]
        parts += [one.scale] if one.scale not in ("", "cpu", DEFAULTS) else []
        parts += [f"{name.removeprefix(f'{one.label}.')} {value}" for name, value in (one.overrides or {}).items()]
        parts += ["ties shuffled"] if one.ties == "shuffled" else []
        return ", ".join(parts)

    @property
    def command(self) -> str:
        """The line that measures the row again; empty if the results do not know it."""
        one = self.first
        if one.overrides is None or not one.scale or one.threads is None:
            return ""
        seeds = ",".join(str(result.seed) for result in self.results)
        words = ["--datasets", one.dataset, "--recipes", one.label, "--seeds", seeds, "--scale", one.scale]
        words += ["--cpus", f"{one.threads:g}", "--ties", one.ties]
        words += ["--overrides", json.dumps(one.overrides, separators=(",", ":"))] if one.overrides else []
        line = shlex.join(words).replace("\\", "\\\\").replace('"', '\\"')
        return f'make reproduce ARGS="{line}"'

    def mean(self, metric: str, protocol: str = MAIN) -> float:
        """Of the seeds."""
        return statistics.mean(self.values(metric, protocol))

    def values(self, metric: str, protocol: str = MAIN) -> list[float]:
        """One per seed."""
        return [result.metrics[protocol][metric][0] for result in self.results]

    def spread(self, metric: str, protocol: str = MAIN) -> str:
        """Mean of the seeds ± their standard deviation, for people."""
        return spread(self.values(metric, protocol))

    @cached_property
    def intervals(self) -> Mapping[str, Interval]:
        """95 % intervals over test users of the columns of `gains`; empty if ranks are missing."""
        return bootstrap_each(self.gains) if self.gains else {}

    @cached_property
    def gains(self) -> Mapping[str, FloatArray]:
        """Each test user's mean of `METRICS` over the seeds, float64[U]; empty if ranks are missing."""
        paths = [ranks_path(kept.path, MAIN) for kept in self.kept]
        if not all(path.exists() for path in paths):
            return {}
        ranks = [np.load(path) for path in paths]
        if len({len(one) for one in ranks}) > 1:
            return {}
        found = [per_user(one) for one in ranks]
        return {name: np.mean([one[name] for one in found], axis=0) for name in METRICS}

    def distances(self, published: Sequence[Sequence[float | None]]) -> list[tuple[str, float, float]]:
        """Metric, and how far its mean is above the best of some published rows, also relative to that."""
        found = []
        for place, metric in enumerate(METRICS):
            best = max((values[place] or 0.0 for values in published), default=0.0)
            if best:
                found.append((metric, self.mean(metric) - best, self.mean(metric) / best - 1))
        return found


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation, for people; the mean alone of one value."""
    mean = statistics.mean(values)
    return f"{mean:.4f}" + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def rows_of(kept: Sequence[Kept]) -> list[Row]:
    """One row per experiment, in the order of its first result; `kept` has the oldest first."""
    groups: dict[str, dict[int, Kept]] = {}
    for one in kept:
        groups.setdefault(config_hash(_experiment(one.result)), {})[one.result.seed] = one
    return [Row([group[seed] for seed in sorted(group)]) for group in groups.values()]


def _experiment(result: Result) -> dict[str, Any]:
    """What results of one row share."""
    return {
        "dataset": result.dataset,
        "label": result.label,
        "ties": result.ties,
        **_shared(result.label, {name: value for name, value in result.content.items() if name != "code"}),
    }


def _shared(label: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` without the seed, and without settings that have their default: a later release may have added them."""
    found = dict(content)
    for member, own in content.get("members", {}).items():
        found["members"] = {**found["members"], member: _shared(member, own)}
    if "settings" in found:
        try:
            defaults = json.loads(json.dumps(asdict(settings_class(recipe_of(label))())))
        except SettingError:
            defaults = {}
        found["settings"] = {
            name: value
            for name, value in content["settings"].items()
            if name != "seed" and (name not in defaults or defaults[name] != value)
        }
    return found
