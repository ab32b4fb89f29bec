"""Rank the held-out item of every user against the whole catalogue."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.data.catalogue import Catalogue, IntArray
from ray_jobs.data.examples import Examples, evaluation_examples, latest_preferences
from ray_jobs.data.histories import Histories, Split
from ray_jobs.data.rows import Texts
from ray_jobs.evaluation.exposure import LIST_LENGTH, exposure, places_of
from ray_jobs.evaluation.measurements import Measured
from ray_jobs.evaluation.metrics import per_user
from ray_jobs.evaluation.slices import LENGTH, TARGET, length_bands, popularity_bands, training_counts
from ray_jobs.evaluation.translation import Translation
from ray_jobs.recommenders.base import Recommender, rank_of
from ray_jobs.training.trainable import Notify, silent
from schemas.errors import DataError
from schemas.measurements import NEXT_ITEM

HISTORY, WITH_PREFERENCE = "history", "history+preference"


@dataclass(frozen=True)
class Ranked:
    """Ranks of one model on one split under one condition.

    Args:
        ranks: int64[U] from 1, ties against the model; 0 if the model did not place the target.
        lists: int64[U, 10], the recommended catalogue indices, best first, -1 where fewer were found; left out of
            the joined results of `ray_jobs.evaluation.parts`, which have `shown`.
        counts: int64[N], occurrences of each catalogue item at training positions.
        sampled: ranked among sampled negatives, not the catalogue.
        shown: int64[N], see `places`, if the lists are not kept.
        seen_targets: see `Examples.seen_targets`.
    """

    split: Split
    condition: str
    examples: Examples
    ranks: npt.NDArray[np.int64]
    lists: npt.NDArray[np.int64] = field(repr=False)
    counts: npt.NDArray[np.int64] = field(repr=False)
    sampled: bool = False
    shown: npt.NDArray[np.int64] | None = field(default=None, repr=False)
    seen_targets: int = 0

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """How many of the lists each catalogue item is in, int64[N]."""
        return places_of(self.lists, len(self.counts)) if self.shown is None else self.shown

    def metrics(self) -> dict[str, npt.NDArray[np.float64]]:
        """Per-user metrics by name, float64[U]; names begin with ``sampled_`` for ranks among sampled negatives."""
        prefix = "sampled_" if self.sampled else ""
        return {f"{prefix}{name}": values for name, values in per_user(self.ranks).items()}

    def exposure(self) -> dict[str, float]:
        """See `ray_jobs.evaluation.exposure.exposure`."""
        return exposure(self.places, self.examples.targets, self.counts)


def evaluate(
    recommender: Recommender,
    histories: Histories,
    splits: tuple[Split, ...] = ("valid", "test"),
    exclude_seen: bool = True,
    notify: Notify = silent,
    catalogue: Catalogue | None = None,
    as_served: bool = False,
) -> list[Ranked]:
    """Rank the targets of `splits` under every condition of the recipe, the one it is served with last.

    The condition with preferences is skipped if no user has any.

    Args:
        exclude_seen: exclude all items of the history from the ranking, as serving does; a target that is in its own
            history is then not placed. The published protocol ranks all items.
        catalogue: of `histories`, if it is not the recommender's; only the recommender's items are ranked, and other
            targets are not placed.
        as_served: only under the last condition.
    """
    recommender.eval()
    between = None if catalogue is None else Translation.between(recommender.catalogue, catalogue)
    jobs = _jobs(recommender, histories, splits)
    jobs = list({job[0]: job for job in jobs}.values()) if as_served else jobs
    counts = training_counts(histories, len(catalogue or recommender.catalogue))
    total, done, results = sum(len(job[2]) for job in jobs), 0, []
    for split, condition, examples in jobs:

        def told(count: int, split: Split = split, condition: str = condition) -> None:
            nonlocal done
            done += count
            notify(done, total, f"{recommender.name}, {split}, {condition}")

        results.append(rank(recommender, histories, split, condition, examples, counts, exclude_seen, between, told))
    return results


def rank(
    recommender: Recommender,
    histories: Histories,
    split: Split,
    condition: str,
    examples: Examples,
    counts: npt.NDArray[np.int64],
    exclude_seen: bool,
    between: Translation | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> Ranked:
    """Rank the targets of `examples`, see `evaluate`.

    Args:
        histories: from which the examples were built.
        between: from the recommender's catalogue to that of the histories, if it is another one.
        told: called with the number of examples of each batch that is done.
    """
    seen_targets = examples.seen_targets()
    ranks, lists = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, LIST_LENGTH, dtype=torch.int64)]
    translated = examples
    if between is not None:
        examples = between.histories(histories, examples, recommender.settings.max_history)
        translated = between.targets(examples)
    for batch in InMemoryExamples(translated).batches(recommender.settings.evaluation_batch_size, None):
        placed = batch.to(recommender.device)
        if condition == WITH_PREFERENCE and recommender.steering is not None:
            placed = placed.with_strength(recommender.known_weight)
        found, best = recommender.ranks_and_topk(placed, LIST_LENGTH, placed.seen if exclude_seen else None)
        ranks.append(found.cpu())
        lists.append(best.cpu())
        told(len(batch))
    found_ranks, found_lists = torch.cat(ranks).numpy(), torch.cat(lists).numpy()
    if between is not None:
        found_ranks = np.where(between.unknown(examples), 0, found_ranks)
        found_lists = between.lists(found_lists)
    return Ranked(split, condition, examples, found_ranks, found_lists, counts, seen_targets=seen_targets)


def evaluate_sampled(
    recommender: Recommender,
    histories: Histories,
    splits: tuple[Split, ...] = ("valid", "test"),
    negatives: int = 100,
    seed: int = 0,
) -> list[Ranked]:
    """Rank each target among `negatives` items drawn uniformly from those that its user never chose.

    Some papers report this. It can order models differently from a ranking of the catalogue (Krichene and Rendle,
    2020). The metrics are named ``sampled_...`` and there are no lists.

    Raises:
        SettingError: the recipe cannot score given items.
        DataError: a user has chosen all items, so there are no negatives.
    """
    recommender.eval()
    items = len(recommender.catalogue)
    counts = training_counts(histories, items)
    results = []
    for split, condition, examples in _jobs(recommender, histories, splits):
        rng = np.random.default_rng(seed)
        ranks, start = [torch.zeros(0, dtype=torch.int64)], 0
        for batch in InMemoryExamples(examples).batches(recommender.settings.evaluation_batch_size, None):
            users = examples.users[start : start + len(batch)]
            drawn = torch.from_numpy(np.stack([_negatives(histories.items[u], items, negatives, rng) for u in users]))
            candidates = torch.cat([batch.targets[:, None], drawn], dim=1).to(recommender.device)  # [B, 1 + negatives]
            with torch.no_grad():
                scores = recommender.candidate_scores(batch.to(recommender.device), candidates)
            ranks.append(rank_of(torch.zeros(len(batch), dtype=torch.int64, device=scores.device), scores).cpu())
            start += len(batch)
        none = np.full((len(examples), LIST_LENGTH), -1, dtype=np.int64)
        results.append(Ranked(split, condition, examples, torch.cat(ranks).numpy(), none, counts, sampled=True))
    return results


def _negatives(chosen: IntArray, items: int, wanted: int, rng: np.random.Generator) -> IntArray:
    """`wanted` different items outside `chosen`; drawn with replacement if there are fewer."""
    left = np.setdiff1d(np.arange(items), chosen)
    if not len(left):
        raise DataError(f"a user has chosen all {items} items of the catalogue: there is no negative to sample")
    return rng.choice(left, wanted, replace=len(left) < wanted)


def _jobs(
    recommender: Recommender, histories: Histories, splits: tuple[Split, ...]
) -> list[tuple[Split, str, Examples]]:
    jobs: list[tuple[Split, str, Examples]] = []
    for split in splits:
        examples = evaluation_examples(histories, split, recommender.settings.max_history)
        jobs.append((split, HISTORY, examples))
        if WITH_PREFERENCE in recommender.conditions:
            preferences = latest_preferences(histories, examples)
            if any(preferences):
                jobs.append((split, WITH_PREFERENCE, examples.with_preferences(preferences)))
    return jobs


def measured(
    results: Sequence[Ranked], model: str, histories: Histories, item_ids: tuple[str, ...], protocol: str
) -> list[Measured]:
    """The metrics of each user in `results`.

    Args:
        model: ``<recipe>@<run identity>``.
        item_ids: of the catalogue that the targets index.
        protocol: how targets were held out and what was ranked.
    """
    return [
        Measured(
            model=model,
            task=NEXT_ITEM,
            split=result.split,
            condition=result.condition,
            protocol=protocol,
            units=Texts.of(histories.user_ids).arrow.take(pa.array(result.examples.users)).cast(pa.string()),
            targets=pa.array([item_ids[int(target)] for target in result.examples.targets], pa.string()),
            slices=slices_of(result),
            values=result.metrics(),
        )
        for result in results
    ]


def slices_of(result: Ranked) -> dict[str, npt.NDArray[np.str_]]:
    """By kind of group, the group of each user, str[U]."""
    return {
        TARGET: popularity_bands(result.counts)[result.examples.targets],
        LENGTH: length_bands(result.examples.positions),
    }
