"""Results of experiments, as they are kept on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from infra.state import read_json

AGAIN = "delete it; the experiment is then evaluated again"
MAIN, ALL_ITEMS = "unseen", "raw"
"""Protocols: items of the history left out of the ranking, or every item ranked."""


@dataclass(frozen=True)
class Result:
    """What an experiment came to.

    Fields with a default are missing in files of earlier releases; None and empty values mean "not known".

    Args:
        metrics: per protocol (`MAIN`, `ALL_ITEMS`) and metric three numbers: the mean over test users, and the ends of
            its 95 % bootstrap interval.
        seconds: of all epochs, in whatever slices they were trained, and of the evaluation.
        device: what trained it.
        content: what the result depends on, see `Runner.content`.
        scale, overrides, threads, ties: how it was called.
        machines: that trained and evaluated it.
        processor_s: of the training processes and of the evaluation.
        peak_mb, gpu_peak_mb: largest memory of a training process in MiB.
        known: `metrics` under `MAIN` over those test targets alone that occur at a training position.
        facts: see `facts_of`.
        request_ms: median milliseconds of a request of one user for ten items, in one thread.
        tied_scores: test users whose target has the score of another item, which counts against the model; None if the
            recipe does not score every item.
        members: the chosen weight of each member of an ensemble, and how it was chosen.
    """

    dataset: str
    label: str
    seed: int
    metrics: Mapping[str, Mapping[str, list[float]]]
    epochs: int
    best_epoch: int
    valid_ndcg_10: float
    parameters: int
    seconds: float
    device: str
    content: Mapping[str, Any]
    records: list[dict[str, float]]
    scale: str = ""
    overrides: Mapping[str, Any] | None = None
    threads: float | None = None
    ties: str = "as_is"
    machines: list[str] = field(default_factory=list)
    processor_s: float | None = None
    peak_mb: float | None = None
    gpu_peak_mb: float | None = None
    known: Mapping[str, list[float]] = field(default_factory=dict)
    facts: Mapping[str, int | None] = field(default_factory=dict)
    request_ms: float | None = None
    tied_scores: int | None = None
    members: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """A result and its file."""

    result: Result
    path: Path


def ranks_path(path: Path, protocol: str) -> Path:
    """Where the ranks int64[U] under a protocol lie, as ``numpy.save`` writes them, beside the result in `path`."""
    return path.with_suffix(f".{protocol}.npy")


def read_result(path: Path) -> Result:
    """The result in `path`; a field of a later release is left out.

    Raises:
        DamagedFile: it is none.
    """
    names = {one.name for one in fields(Result)}
    return read_json(path, AGAIN, lambda raw: Result(**{name: raw[name] for name in raw if name in names}))


def read_results(folder: Path) -> Sequence[Kept]:
    """All results of a folder, the oldest first."""
    paths = sorted(folder.glob("reproduce--*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    return [Kept(read_result(path), path) for path in paths]
