"""Adding items to a codebook: training items first, then all others, without changing existing codes."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from infra.errors import SettingError
from ray_jobs.recipes.tokenizers.settings import QuantiserSettings
from ray_jobs.tokenizers.base import Codes, FitContext, Quantiser
from ray_jobs.tokenizers.codebook import Codebook
from ray_jobs.tokenizers.collisions import (
    EXTRA_LEVEL,
    LIST,
    Distances,
    Members,
    collision_groups,
    counter_level,
    resolve,
    running_numbers,
    with_distances,
)
from ray_jobs.tokenizers.vectors import Floats, Rows, Vectors, take


def make_codebook(
    codes: Codes,
    item_ids: list[str],
    vectors: Vectors,
    quantiser: Quantiser,
    settings: QuantiserSettings,
    context: FitContext,
) -> Codebook:
    """The codebook of quantised `codes` int32[N, L].

    Collisions among training items are resolved first, so that other items do not change their codes; the others are
    added like appended items. A level size that is chosen automatically has room for both.

    Raises:
        SettingError: the collision policy cannot make the tuples unique.
    """
    training = np.flatnonzero(context.training)
    rest = np.flatnonzero(~context.training)
    policy, setting = settings.collisions, f"{settings.section}.collision_size"
    size = settings.collision_size
    if policy != LIST and size == 0:
        size = counter_level(item_ids, codes, 0, setting)[1]
    trained, level_sizes = resolve(
        policy,
        [item_ids[row] for row in training],
        codes[training],
        distances_of(vectors, quantiser, codes, training),
        quantiser.level_sizes,
        size,
        setting,
    )
    complete = np.zeros((len(item_ids), len(level_sizes)), np.int32)
    complete[training] = trained
    there = Codebook(
        item_ids=[item_ids[row] for row in training],
        codes=trained,
        level_sizes=level_sizes,
        version=context.version,
        collision_policy=policy,
    )
    complete[rest] = join(
        there, [item_ids[row] for row in rest], codes[rest], distances_of(vectors, quantiser, codes, rest), setting
    )
    return replace(there, item_ids=item_ids, codes=complete, appended=None)


def distances_of(vectors: Vectors, quantiser: Quantiser, codes: Codes, subset: Rows) -> Distances | None:
    """The function `collisions.Distances` for the items at `subset`; None if the quantiser has no distances.

    Args:
        codes: int32[N, L] of all N vectors.
        subset: positions in `vectors`; the function takes rows of `subset`.
    """
    empty = np.empty((0, vectors.shape[1]), np.float32)
    if quantiser.last_level_distances(empty, codes[:0]) is None:
        return None

    def distances(rows: Rows) -> Floats:
        chosen = subset[rows]
        found = quantiser.last_level_distances(take(vectors, chosen), codes[chosen])
        assert found is not None
        return found

    return distances


def join(codebook: Codebook, item_ids: list[str], codes: Codes, distances: Distances | None, setting: str) -> Codes:
    """Complete codes int32[n, H] of new items of `codebook`, whose own items keep theirs.

    With a counter level, the counter of a tuple continues, in order of item id. Without one, a tuple that is taken gets
    the nearest free code of the last level. With the policy ``list`` any tuple is allowed.

    Args:
        codes: int32[n, L], the quantiser's tuples.
        distances: of rows of `codes`, as for `collisions.resolve`.
        setting: name of the setting of the counter level's size, for the message.

    Raises:
        SettingError: the last level is full for one of the tuples.
    """
    if len(item_ids) == 0:
        return np.empty((0, len(codebook.level_sizes)), np.int32)
    if codebook.collision_policy == LIST:
        return codes
    if len(codebook.level_sizes) == codes.shape[1] + 1:
        return _count_on(codebook, item_ids, codes, setting)
    return _nearest_free(codebook, item_ids, codes, distances)


def _count_on(codebook: Codebook, item_ids: list[str], codes: Codes, setting: str) -> Codes:
    there = codebook.codes
    groups = collision_groups(np.concatenate([there[:, :-1], codes]))
    following = np.zeros(groups.max() + 1, np.int64)
    np.maximum.at(following, groups[: len(there)], there[:, -1].astype(np.int64) + 1)
    mine = groups[len(there) :]
    order = np.argsort(np.asarray(item_ids), kind="stable")
    counter = following[mine] + running_numbers(mine, order)
    size = codebook.level_sizes[-1]
    if counter.max() >= size:
        row = int(order[np.flatnonzero(counter[order] >= size)[0]])
        raise SettingError(
            f"codebook {codebook.version} is full at its last level: {item_ids[row]} would be item number "
            f"{counter[row] + 1} with the codes {codes[row].tolist()}, and there are {size} places; raise {setting} (0 "
            "chooses) and fit a new version (--generation)"
        )
    return np.column_stack([codes, counter]).astype(np.int32)


def _nearest_free(codebook: Codebook, item_ids: list[str], codes: Codes, distances: Distances | None) -> Codes:
    there, complete = codebook.codes, codes.copy()
    tuples = collision_groups(np.concatenate([there, codes]))
    prefixes = collision_groups(np.concatenate([there, codes])[:, :-1])
    clashing = np.unique(prefixes[len(there) :][np.bincount(tuples)[tuples[len(there) :]] > 1])
    by_prefix, place = Members(prefixes), np.argsort(np.argsort(np.asarray(item_ids), kind="stable"))

    def joining() -> Iterator[Rows]:
        for prefix in clashing:
            rows = by_prefix.of(prefix)
            new = rows[rows >= len(there)] - len(there)
            yield new[np.argsort(place[new])]

    everything = np.arange(codebook.level_sizes[-1])
    for prefix, (rows, cost) in zip(clashing, with_distances(joining(), distances or _no_distances), strict=True):
        known = by_prefix.of(prefix)
        used = there[known[known < len(there)], -1]
        for row, near in zip(rows, cost, strict=True):
            if (used == codes[row, -1]).any():
                free = np.setdiff1d(everything, used)
                if len(free) == 0 or distances is None:
                    raise SettingError(
                        f"codebook {codebook.version} has no code left for {item_ids[row]} at its last level behind "
                        f"the codes {codes[row, :-1].tolist()}: fit a new version (--generation) with more codes, or "
                        f"with the collision policy {EXTRA_LEVEL}"
                    )
                complete[row, -1] = free[near[free].argmin()]
            used = np.append(used, complete[row, -1])
    return complete


def _no_distances(rows: Rows) -> Floats:
    return np.empty((len(rows), 0), np.float32)
