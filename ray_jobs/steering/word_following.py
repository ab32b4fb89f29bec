"""Does a list follow words? Wishes and refusals of the catalogue's commonest properties, put to a recommender.

A property is what some items have and a sentence can name: a term of their texts, or a category. For a property X and a
user: *success*, a wish for X at least doubles the share of X in the first ten items; *control*, a wish for another
property does; *halved*, a refusal of X at most halves it, among lists that had some.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ray_jobs.data.batches import make_batch
from ray_jobs.data.catalogue import IntArray
from ray_jobs.data.histories import Histories, Split
from ray_jobs.evaluation.exposure import LIST_LENGTH
from ray_jobs.recommenders.base import Recommender
from ray_jobs.steering.terms import find_terms
from schemas.recipes import Need

SAME = 0.8
"""Properties of which so large a share of the items is the same are one."""
_FEWEST, _MOST = 10, 0.5
"""A property that fewer items, or a larger share of them, have says little of a list of ten."""


@dataclass(frozen=True, kw_only=True)
class Following:
    """How well lists follow words, shares from 0 to 1; see the module.

    Args:
        lists: pairs of a user and a property that were asked; 0 for a recipe that no word reaches.
        before, wanted, refused: mean share of a property among the first ten items without words, under a wish for it
            and under a refusal.
    """

    success: float = 0.0
    control: float = 0.0
    halved: float = 0.0
    lists: int = 0
    before: float = 0.0
    wanted: float = 0.0
    refused: float = 0.0


def common(having: Sequence[IntArray], size: int, count: int) -> list[int]:
    """Places of the properties that the most of `size` items have, one for each set of items, at most `count`.

    Args:
        having: ascending catalogue indices of the items that have each property.
    """
    places = [place for place, items in enumerate(having) if _FEWEST <= len(items) <= _MOST * size]
    chosen: list[int] = []
    for place in sorted(places, key=lambda place: -len(having[place])):
        own = having[place]
        shares = (
            len(np.intersect1d(own, other)) / len(np.union1d(own, other)) for other in map(having.__getitem__, chosen)
        )
        if all(share < SAME for share in shares):
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
    split: Split = "test",
    properties: Mapping[str, IntArray] | None = None,
) -> Following:
    """Put a wish for each of the commonest properties, and a refusal of it, to a recommender.

    Args:
        users: how many are asked, drawn under `seed` among those with a target in `split`.
        words: properties that are asked for, the commonest ones.
        properties: what a sentence calls each, and the ascending catalogue indices of the items that have it; the terms
            of the catalogue by default.
    """
    if recommender.steering is None and Need.PREFERENCES not in recommender.needs:
        return Following()
    layer = recommender.steering
    if properties is None:
        terms = find_terms(recommender.catalogue.texts) if layer is None else layer.terms.terms
        properties = terms.properties()
    names, having = list(properties), list(properties.values())
    asked = [(names[place], having[place]) for place in common(having, len(recommender.catalogue), words)]
    able = [user for user in range(len(histories)) if histories.target_position(user, split) >= 1]
    chosen = sorted(np.random.default_rng(seed).permutation(able)[:users].tolist())
    if len(asked) < 2 or not chosen:
        return Following()
    before = [histories.items[user][: histories.target_position(user, split)] for user in chosen]
    plain = _lists(recommender, before, "")
    wished = [_lists(recommender, before, f"Prefers {name}") for name, _ in asked]
    success, control, halved, shares = [], [], [], []
    for number, (name, items) in enumerate(asked):
        has = np.zeros(len(recommender.catalogue) + 1)  # the last place stands for index -1, no item
        has[items] = 1

        def share(lists: IntArray, has: np.ndarray = has) -> np.ndarray:
            return has[lists].mean(axis=1)

        own, refused = share(plain), share(_lists(recommender, before, f"Avoids {name}"))
        wanted = share(wished[number])
        shares.append((own.mean(), wanted.mean(), refused.mean()))
        success.append(_doubled(own, wanted))
        control.append(_doubled(own, share(wished[(number + len(asked) // 2) % len(asked)])))
        halved.append((refused <= own / 2)[own > 0])
    there = np.concatenate(halved)
    before_mean, wanted_mean, refused_mean = np.mean(shares, axis=0).tolist()
    return Following(
        success=float(np.mean(success)),
        control=float(np.mean(control)),
        halved=float(there.mean()) if len(there) else 0.0,
        lists=len(asked) * len(chosen),
        before=before_mean,
        wanted=wanted_mean,
        refused=refused_mean,
    )


def _doubled(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (after > 0) & (after >= 2 * before)


@torch.no_grad()
def _lists(recommender: Recommender, histories: Sequence[IntArray], sentence: str) -> IntArray:
    """The first ten items int64[U, 10] after each history, which they leave out."""
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
