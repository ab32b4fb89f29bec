"""Index schemes: codes that number items, or give their place in a tree of categories or co-occurrence clusters.

The schemes are those of Hua et al. 2023 ("How to Index Item IDs for Recommendation Foundation Models"); `constrained`
is that of ColaRec (Wang et al. 2024). Our changes: all tuples have the same length, and items without training
interactions are numbered last, so that they do not change other items' codes.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from infra.errors import SettingError
from ray_jobs.data.rows import Rows
from ray_jobs.recipes.tokenizers.settings import ItemIndexSettings
from ray_jobs.tokenizers.base import FitContext, Fitted, Floats
from ray_jobs.tokenizers.codebook import Codebook
from ray_jobs.tokenizers.collisions import EXTRA_LEVEL, NONE, padded_size, running_numbers
from ray_jobs.tokenizers.cooccurrence import Cooccurrence, IntArray, balanced_codes, chunks
from schemas.errors import DataError

Codes = npt.NDArray[np.int32]
Path = tuple[Any, ...]

FILLER = 0


class ItemIndex:
    """The recipe ``itemindex``; it uses sequences or categories, not vectors."""

    name: ClassVar[str] = "itemindex"

    def __init__(self, settings: ItemIndexSettings) -> None:
        self.settings = settings

    def fit(self, vectors: Floats, item_ids: list[str], context: FitContext) -> Fitted:  # noqa: ARG002
        """Assign codes according to the scheme.

        Raises:
            DataError: the scheme needs categories and no item has one.
            SettingError: too many training items for ``constrained``.
        """
        scheme = self.settings.scheme
        order = np.lexsort((np.asarray(item_ids), ~context.training))
        if scheme in ("random", "sequential"):
            codes, sizes = self._digits(order, context)
            quantised, policy = len(sizes), NONE
        else:
            codes, sizes = self._constrained(order, context) if scheme == "constrained" else self._paths(order, context)
            groups = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
            quantised, policy = len(sizes), NONE if scheme == "hybrid" else EXTRA_LEVEL
            own = running_numbers(np.zeros(len(codes), np.int64) if scheme == "hybrid" else groups, order)
            codes = np.column_stack([codes, own])
            largest = int(own.max()) + 1
            sizes = (*sizes, largest if scheme == "hybrid" else padded_size(largest))
        codebook = Codebook(
            item_ids=item_ids, codes=codes, level_sizes=sizes, version=context.version, collision_policy=policy
        )
        return Fitted(codebook=codebook, quantised_levels=quantised)

    def _digits(self, order: IntArray, context: FitContext) -> tuple[Codes, tuple[int, ...]]:
        base, known = self.settings.base, int(context.training.sum())
        length = digits_for(2 * known, base)
        places = np.arange(len(order))
        if self.settings.scheme == "random":
            drawn = np.random.default_rng(self.settings.seed).permutation(base**length)
            places = np.r_[drawn, np.arange(base**length, len(order))][: len(order)]
        else:
            rows, first = np.unique(Rows.of(context.sequences).values, return_index=True)
            assert len(rows) == known
            order = np.r_[rows[np.argsort(first)], order[known:]]
        numbers = np.empty(len(order), np.int64)
        numbers[order] = places
        length = max(length, digits_for(len(order), base))
        powers = base ** np.arange(length - 1, -1, -1)
        return (numbers[:, None] // powers % base).astype(np.int32), (base,) * length

    def _paths(self, order: IntArray, context: FitContext) -> tuple[Codes, tuple[int, ...]]:
        settings = self.settings
        if "semantic" in (settings.scheme, settings.path if settings.scheme == "hybrid" else ""):
            if context.categories is None:
                raise DataError(
                    f"itemindex.scheme {settings.scheme!r} needs the category paths of items, but no item has one: "
                    "fill the column 'categories' of the table items, or set itemindex.scheme to 'collaborative'"
                )
            return path_codes([path[: settings.depth] for path in context.categories], context.training)
        known, others = np.split(order, [int(context.training.sum())])
        graph = Cooccurrence(context.sequences, len(order))
        paths: list[tuple[int, ...]] = [()] * len(order)
        tree = graph.tree(np.sort(known), settings.clusters, settings.leaf, settings.depth, settings.seed)
        for row, path in zip(np.sort(known).tolist(), tree, strict=True):
            paths[row] = path
        following = max(path[0] for path in tree) + 1
        for number, rows in enumerate(chunks(others, settings.leaf)):
            for row in rows.tolist():
                paths[row] = (following + number,)
        return path_codes(paths, context.training)

    def _constrained(self, order: IntArray, context: FitContext) -> tuple[Codes, tuple[int, ...]]:
        branches = self.settings.branches
        known, others = np.split(order, [int(context.training.sum())])
        if len(known) > branches**3:
            raise SettingError(
                f"itemindex.branches is {branches}, which has room for {branches**3} training items, but there are "
                f"{len(known)}: raise it"
            )
        known = np.sort(known)
        vectors = Cooccurrence(context.sequences, len(order)).vectors(known, self.settings.width, self.settings.seed)
        codes = np.empty((len(order), 2), np.int32)
        codes[known] = balanced_codes(vectors, branches, self.settings.seed)
        leaf = np.arange(len(others)) // branches
        codes[others] = np.column_stack([branches + leaf // branches, leaf % branches])
        return codes, (max(branches, int(codes[:, 0].max()) + 1), branches)


def path_codes(paths: Sequence[Path], training: npt.NDArray[np.bool_]) -> tuple[Codes, tuple[int, ...]]:
    """One code per step of a path, the number of the node on its level; shorter paths end in fillers.

    On each level, nodes of training items are numbered first, after the filler 0. Paths are truncated to the longest
    path of a training item.

    Args:
        paths: N paths from the root.
        training: bool[N].

    Returns:
        int32[N, D] and the vocabulary size per level.
    """
    depth = max(1, max(len(path) for path, known in zip(paths, training, strict=True) if known))
    codes = np.full((len(paths), depth), FILLER, np.int32)
    sizes = []
    for level in range(depth):
        numbers: dict[Path, int] = {}
        for seen in (True, False):
            nodes = {
                p[: level + 1] for p, known in zip(paths, training, strict=True) if known == seen and len(p) > level
            }
            for node in sorted(nodes - numbers.keys()):
                numbers[node] = len(numbers) + 1
        codes[:, level] = [numbers[path[: level + 1]] if len(path) > level else FILLER for path in paths]
        sizes.append(len(numbers) + 1)
    return codes, tuple(sizes)


def digits_for(numbers: int, base: int) -> int:
    """Number of digits for so many different `numbers`."""
    digits = 1
    while base**digits < numbers:
        digits += 1
    return digits
