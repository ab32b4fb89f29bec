"""Fine and coarse steering: a preference near an item, given with the history of a user who chose another item."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipelines.language.validation import LIKE
from pipelines.steering.histories import History, Split
from pipelines.steering.samples import OVER_LIMIT, Sample, stable_hash
from pipelines.steering.vectors import FloatArray, IntArray, Vectors, least_similar, most_similar, nearest
from schemas.preference_benchmark import COARSE, FINE

RANKS = 3
"""Preferences of the pool considered per item; a smaller pool gives no samples."""
POOL_TOO_SMALL = "fewer_than_3_likes"
NO_PARTNER = "no_partner"
NO_OTHER_USER = "nobody_else_chose_partner"
HELD_OUT_LABEL = "held_out_from_the_user"
SEEN_TARGET = "target_in_training"

Place = tuple[History, int]


@dataclass(frozen=True, kw_only=True)
class Target:
    """An item that is a target in a split, with all positions at which it is; the first one represents it."""

    item: str
    places: tuple[Place, ...]


def training_items(histories: Iterable[History]) -> frozenset[str]:
    """Items at any user's training positions."""
    return frozenset(item for history in histories for item in history.items[: history.train_end])


def steering_targets(
    histories: Sequence[History], split: Split, *, most: int, seed: int, seen: frozenset[str] = frozenset()
) -> tuple[list[Target], Counter[str]]:
    """The target items of `split`, in order of first appearance.

    Args:
        most: items kept, chosen by the hash of their ids.
        seen: items to leave out.

    Returns:
        The targets, and the number of items left out, by reason.
    """
    places: dict[str, list[Place]] = {}
    for history in histories:
        for position in history.targets(split):
            places.setdefault(history.items[position], []).append((history, position))
    unseen = [item for item in places if item not in seen]
    kept = set(sorted(unseen, key=lambda item: (stable_hash(seed, item), item))[:most])
    left_out = Counter({SEEN_TARGET: len(places) - len(unseen), OVER_LIMIT: len(unseen) - len(kept)})
    return [Target(item=item, places=tuple(places[item])) for item in unseen if item in kept], +left_out


def like_pool(histories: Iterable[History], split: Split, *, most: int, seed: int) -> list[str]:
    """The distinct likes of all users, sorted; in training those of training positions only.

    Args:
        most: likes kept, chosen by their hash.
    """
    texts = {
        preference.text
        for history in histories
        for position, preferences in history.preferences.items()
        if split != "train" or position < history.train_end
        for preference in preferences
        if preference.sentiment == LIKE
    }
    return sorted(sorted(texts, key=lambda text: (stable_hash(seed, text), text))[:most])


def steering_samples(
    split: Split,
    targets: Sequence[Target],
    pool: Sequence[str],
    texts: Vectors,
    items: Vectors,
    *,
    label_cap: int,
    seed: int,
) -> tuple[dict[str, list[Sample]], dict[str, Counter[str]]]:
    """Samples of both axes: each target paired with the most similar (fine) or least similar (coarse) other target.

    In training, a sample is left out when its target is held out for the user whose history is read.

    Args:
        label_cap: how many targets an item may be the coarse partner of.
        seed: of the choice among several users.

    Returns:
        Samples by axis, and by axis the number of targets or samples left out, by reason.
    """
    if len(pool) < RANKS:
        none = {axis: Counter({POOL_TOO_SMALL: len(targets)}) for axis in (FINE, COARSE)}
        return {FINE: [], COARSE: []}, none
    vectors = items.of([target.item for target in targets])
    near, cosine = nearest(vectors, texts.of(pool), RANKS)
    found, skipped = {}, {}
    for axis, partners in ((FINE, most_similar(vectors)), (COARSE, least_similar(vectors, label_cap))):
        found[axis], skipped[axis] = _swap(axis, split, targets, partners, pool, near, cosine, seed)
    return found, skipped


def _swap(
    axis: str,
    split: Split,
    targets: Sequence[Target],
    partners: IntArray,
    pool: Sequence[str],
    near: IntArray,
    cosine: FloatArray,
    seed: int,
) -> tuple[list[Sample], Counter[str]]:
    found, skipped = [], Counter[str]()
    for s, t in enumerate(int(partner) for partner in partners):
        if t < 0:
            skipped[NO_PARTNER] += 1
            continue
        pair = f"{targets[s].item}>{targets[t].item}"
        own = targets[s].places[0]
        others = [place for place in targets[t].places if place[0].user_id != own[0].user_id]
        if not others:
            skipped[NO_OTHER_USER] += 1
            continue
        other = others[stable_hash(seed, axis, split, pair) % len(others)]
        if split == "train":
            of_s, of_t = 0, int(near[t, 0] == near[s, 0])
        else:
            of_s, of_t = 1, 2
        for label, partner, rank, (history, end) in ((s, t, of_s, other), (t, s, of_t, own)):
            if split == "train" and targets[label].item in history.held_out:
                skipped[HELD_OUT_LABEL] += 1
                continue
            found.append(
                Sample(
                    axis=axis,
                    split=split,
                    sample_id=f"{pair}:{targets[label].item}",
                    history=history,
                    history_end=end,
                    target=targets[label].item,
                    preference=pool[near[label, rank]],
                    partner=targets[partner].item,
                    similarity=float(cosine[label, rank]),
                )
            )
    return found, skipped
