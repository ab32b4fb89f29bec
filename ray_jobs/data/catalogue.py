"""The catalogue of items; elsewhere an item is its index here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import DataError
from schemas.item_conditions import ATTRIBUTES

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Catalogue:
    """The items that can be recommended, sorted by id.

    Args:
        titles: the id for items without title.
        texts: the full text of each item.
        codes: semantic ids int64[N, H]; None if the recipe needs none.
        level_sizes: vocabulary size per level; empty without codes.
        interacted: bool[N], items at some training position; None if all are known to be.
        attributes: a row per item with the columns of `schemas.item_conditions.ATTRIBUTES`; None if they are not known.
        vectors: learned vectors float32[N, D] by ``<table>.<column>``, those that the recipe needs; zero for an item
            without one. See `ray_jobs.data.learned_vectors`.
    """

    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    codes: IntArray | None = None
    level_sizes: tuple[int, ...] = ()
    interacted: npt.NDArray[np.bool_] | None = None
    attributes: pa.Table | None = field(default=None, repr=False, compare=False)
    vectors: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    index: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        assert len(self.item_ids) == len(self.titles) == len(self.texts)
        object.__setattr__(self, "index", {item: i for i, item in enumerate(self.item_ids)})
        assert len(self.index) == len(self.item_ids), "item ids must be unique"
        if self.codes is not None:
            assert self.codes.shape == (len(self.item_ids), len(self.level_sizes))
        assert self.interacted is None or self.interacted.shape == (len(self.item_ids),)
        assert all(len(vectors) == len(self.item_ids) for vectors in self.vectors.values())

    def __len__(self) -> int:
        return len(self.item_ids)

    def with_codes(self, codes: Mapping[str, Sequence[int]], level_sizes: Sequence[int]) -> "Catalogue":
        """The same catalogue with semantic ids.

        Raises:
            DataError: an item has no code tuple.
        """
        missing = [item for item in self.item_ids if item not in codes]
        if missing:
            raise DataError(
                f"semantic_ids has no codes for {len(missing)} of {len(self)} catalogue items, e.g. {missing[0]!r}; "
                "run the semantic_ids stage on this partition's item vectors"
            )
        rows = np.array([list(codes[item]) for item in self.item_ids], dtype=np.int64)
        return replace(self, codes=rows, level_sizes=tuple(int(size) for size in level_sizes))


def read_catalogue(sequences: pa.Table, items: pa.Table, everything: bool = False) -> Catalogue:
    """Items that occur in `sequences`, with title, text and attributes.

    Args:
        items: rows of the table `items`, one per item.
        everything: take all of `items`.

    Raises:
        DataError: an item of a sequence has no row in `items`.
    """
    used = pc.unique(pc.list_flatten(sequences["item_ids"]))
    known = items["item_id"].combine_chunks()
    missing = used.filter(pc.invert(pc.is_in(used, known)))
    if len(missing):
        raise DataError(
            f"table items lacks {len(missing)} of the {len(used)} items in sequences, e.g. "
            f"{min(missing.to_pylist())!r}; run the ingest stage on the item file that belongs to these reviews"
        )
    chosen = items if everything else items.filter(pc.is_in(known, used))
    chosen = chosen.sort_by("item_id")
    return Catalogue(
        item_ids=tuple(chosen["item_id"].to_pylist()),
        titles=tuple(pc.coalesce(chosen["title"], chosen["item_id"]).to_pylist()),
        texts=tuple(chosen["text"].to_pylist()),
        attributes=chosen.select(list(ATTRIBUTES)).combine_chunks(),
    )
