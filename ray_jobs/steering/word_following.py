"""Measure whether lists follow words: wishes and refusals of the catalogue's most common properties.

A property is something that some items have and a sentence can name: a term of their texts, or a category. For a
property X and a user: *success*, a wish for X at least doubles the share of X in the first ten items; *control*, a wish
for another property does; *halved*, a refusal of X at most halves it, among lists that contain X without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ray_jobs.data.batches import make_batch
from ray_jobs.data.catalogue import IntArray
from ray_jobs.data.histories import Histories
from ray_jobs.evaluation.exposure import LIST_LENGTH
from ray_jobs.evaluation.metrics import doubled
from ray_jobs.recommenders.base import Recommender
from ray_jobs.steering.terms import find_terms
from schemas.recipes import Need

_SAME = 0.8
"""Jaccard similarity of two properties' items from which they count as one property."""
_FEWEST, _MOST = 10, 0.5
"""Fewest items, and largest share of the items, of a property: others say little about a list of ten."""


@dataclass(frozen=True, kw_only=True)
class Following:
    """How well lists follow words, as shares from 0 to 1; see the module.

    Args:
        lists: number of pairs of a user and a property; 0 for a recipe that ignores words.
        before, wanted, refused: mean share of the property in the first ten items without words, under a wish for it
            and under a refusal.
    """

    success: float = 0.0
    control: float = 0.0
    halved: float = 0.0
    lists: int = 0
    before: float = 0.0
    wanted: float = 0.0
    refused: float = 0.0


def commonest(having: Sequence[IntArray], size: int, count: int) -> list[int]:
    """Indices of the `count` most common properties of `size` items; of similar properties only the most common.

    Args:
        having: ascending catalogue indices of the items that have each property.
    """
    places = [place for place, items in enumerate(having) if _FEWEST <= len(items) <= _MOST * size]
    chosen: list[int] = []
    for place in sorted(places, key=lambda place: -len(having[place])):
        own = having[place]
        others = map(having.__getitem__, chosen)
        if all(len(np.intersect1d(own, other)) / len(np.union1d(own, other)) < _SAME for other in others):
            chosen.append(place)
        if len(chosen) == count:
            break
    return chosen


def measure_following(
    recommender: Recommender,
    histories: Histories,
    users: int = 60,
    words: int = 20,
    seed: int = 0,
    properties: Mapping[str, IntArray] | None = None,
) -> Following:
    """Request lists with a wish for each of the most common properties and with a refusal of it.

    Args:
        users: number of users, drawn under `seed` from those with a test target.
        words: number of properties.
        properties: by name, the ascending catalogue indices of the items that have it; the catalogue's terms by
            default.
    """
    layer = recommender.steering
    if layer is None and Need.PREFERENCES not in recommender.needs:
        return Following()
    if properties is None:
        terms = find_terms(recommender.catalogue.texts) if layer is None else layer.terms.terms
        properties = terms.properties()
    names, having = list(properties), list(properties.values())
    tested = [(names[place], having[place]) for place in commonest(having, len(recommender.catalogue), words)]
    able = np.flatnonzero(histories.test_position >= 1)
    chosen = sorted(np.random.default_rng(seed).permutation(able)[:users].tolist())
    if len(tested) < 2 or not chosen:
        return Following()
    before = [histories.items[user][: histories.target_position(user, "test")] for user in chosen]
    plain = _lists(recommender, before, "")
    wished = [_lists(recommender, before, f"Prefers {name}") for name, _ in tested]
    success, control, halved, shares = [], [], [], []
    for number, (name, items) in enumerate(tested):
        has = np.zeros(len(recommender.catalogue) + 1)  # the last place is for index -1, no item
        has[items] = 1
        lists = (
            plain,
            wished[number],
            _lists(recommender, before, f"Avoids {name}"),
            wished[(number + len(tested) // 2) % len(tested)],
        )
        own, wanted, refused, other = (has[each].mean(axis=1) for each in lists)  # float64[U] each
        shares.append((own.mean(), wanted.mean(), refused.mean()))
        success.append(doubled(own, wanted))
        control.append(doubled(own, other))
        halved.append((refused <= own / 2)[own > 0])
    there = np.concatenate(halved)
    before_mean, wanted_mean, refused_mean = np.mean(shares, axis=0).tolist()
    return Following(
        success=float(np.mean(success)),
        control=float(np.mean(control)),
        halved=float(there.mean()) if len(there) else 0.0,
        lists=len(tested) * len(chosen),
        before=before_mean,
        wanted=wanted_mean,
        refused=refused_mean,
    )


@torch.no_grad()
def _lists(recommender: Recommender, histories: Sequence[IntArray], sentence: str) -> IntArray:
    """The first ten items after each history without its own items, int64[U, 10]."""
    recommender.eval()
    size, reach = recommender.settings.evaluation_batch_size, recommender.settings.max_history
    parts = []
    for start in range(0, len(histories), size):
        part = histories[start : start + size]
        recent = [items[-reach:] for items in part]
        now = [np.zeros(len(items), dtype=np.int64) for items in recent]
        batch = make_batch(recent, [sentence] * len(part), times=now, asked_at=np.zeros(len(part), dtype=np.int64))
        seen = make_batch(part, [""] * len(part)).history.to(recommender.device)
        parts.append(recommender.topk(batch.to(recommender.device), LIST_LENGTH, seen)[0].cpu().numpy())
    return np.concatenate(parts)
