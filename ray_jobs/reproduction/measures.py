"""What is measured of a recommender on the test split, and what a reader has to know about the data."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import Examples, evaluation_examples
from ray_jobs.data.histories import Histories
from ray_jobs.data.ties import same_as_previous
from ray_jobs.evaluation.evaluator import evaluate
from ray_jobs.evaluation.metrics import bootstrap_each
from ray_jobs.recommenders.base import Recommender, ScoringRecommender, without
from ray_jobs.reproduction.results import ALL_ITEMS, MAIN


@dataclass
class Measures:
    """Fields of a `Result`, and per protocol the ranks int64[U] of all test users."""

    metrics: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    known: dict[str, list[float]] = field(default_factory=dict)
    request_ms: float = 0.0
    tied_scores: int | None = None
    ranks: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)


def measure(recommender: Recommender, histories: Histories) -> Measures:
    """Rank the test targets under both protocols."""
    found = Measures()
    for protocol, unseen in ((ALL_ITEMS, False), (MAIN, True)):
        (ranked,) = evaluate(recommender, histories, ("test",), exclude_seen=unseen)
        columns, known = ranked.metrics(), ranked.counts[ranked.examples.targets] > 0
        found.ranks[protocol] = ranked.ranks
        found.metrics[protocol] = _with_intervals(columns)
        found.metrics[protocol] |= {name: [round(value, 5)] * 3 for name, value in ranked.exposure().items()}
        if protocol == MAIN and known.any():
            found.known = _with_intervals({name: values[known] for name, values in columns.items()})
    if isinstance(recommender, ScoringRecommender):
        found.tied_scores = tied_scores(recommender, ranked.examples)
    found.request_ms = request_ms(recommender, ranked.examples)
    return found


@torch.no_grad()
def request_ms(recommender: Recommender, examples: Examples, requests: int = 30) -> float:
    """Median milliseconds in which one thread finds ten unseen items for one user, after three warm-ups."""
    recommender.eval()
    chosen = np.linspace(0, len(examples) - 1, requests + 3).astype(int)
    taken, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for batch in InMemoryExamples(examples.at(chosen)).batches(1, None):
            placed = batch.to(recommender.device)
            began = time.perf_counter()
            recommender.topk(placed, min(10, len(recommender.catalogue)), placed.seen)[0].cpu()
            taken.append(1000 * (time.perf_counter() - began))
    finally:
        torch.set_num_threads(threads)
    return round(statistics.median(taken[3:]), 2)


def _with_intervals(columns: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, list[float]]:
    """Mean, and ends of the 95 % interval, of each column."""
    found = bootstrap_each(columns)
    return {name: [round(value, 5) for value in (one.mean, one.low, one.high)] for name, one in found.items()}


@torch.no_grad()
def tied_scores(recommender: ScoringRecommender, examples: Examples) -> int:
    """Number of targets with the score of another item, among the items that `examples` have not seen."""
    every, total = torch.arange(len(recommender.catalogue), device=recommender.device), 0
    recommender.eval()
    for batch in InMemoryExamples(examples).batches(recommender.settings.evaluation_batch_size, None):
        placed = batch.to(recommender.device)
        scores = without(recommender.candidate_scores(placed, every.expand(len(placed), -1)), placed.seen)
        own = scores.gather(1, placed.targets[:, None])
        total += int(((scores == own).sum(dim=1) > 1)[~own[:, 0].isinf()].sum())
    return total


def facts_of(catalogue: Catalogue, histories: Histories) -> dict[str, int | None]:
    """What a reader has to know about the data.

    Returns:
        users, items, interactions; test_targets; known_targets, those that occur at a training position; seen_targets,
        those in their own history; tied_targets, those with the time of the item before, so that the tie rule chose
        which of the two is held out, None if there are no times.
    """
    examples = evaluation_examples(histories, "test", 1)
    users, positions = examples.users.tolist(), examples.positions.tolist()
    tied = None
    if histories.times is not None:
        times = histories.times
        tied = sum(bool(same_as_previous(times[user])[at]) for user, at in zip(users, positions, strict=True))
    return {
        "users": len(histories),
        "items": len(catalogue),
        "interactions": sum(len(items) for items in histories.items),
        "test_targets": len(examples),
        "known_targets": int(histories.interacted(len(catalogue))[examples.targets].sum()),
        "seen_targets": examples.seen_targets(),
        "tied_targets": tied,
    }
