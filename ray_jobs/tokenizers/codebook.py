"""A version of a codebook: items and their code tuples."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ray_jobs.tokenizers.collisions import LIST
from schemas.errors import DataError
from schemas.semantic_ids import SEMANTIC_IDS


@dataclass(frozen=True, eq=False)
class Codebook:
    """Item -> code tuple; tries and set indexes derive from it.

    Args:
        item_ids: unique.
        codes: int32[N, H]; level h is in ``range(level_sizes[h])``.
        level_sizes: vocabulary size of each level, including room for items that are appended later.
        version: its name.
        collision_policy: treatment of equal tuples, e.g. ``extra_level`` (a counter as the last level); with ``list``
            several items may share a tuple.
        ordered: False if a tuple is a set, so that equal sets are equal codes.
        appended: bool[N], items added after the fit; None for none.

    Raises:
        DataError: shapes do not fit, a code is out of range, or two items share a tuple without ``list``.
    """

    item_ids: list[str]
    codes: np.ndarray
    level_sizes: tuple[int, ...]
    version: str
    collision_policy: str
    ordered: bool = True
    appended: np.ndarray | None = None

    def __post_init__(self) -> None:
        codes = np.ascontiguousarray(self.codes, dtype=np.int32)
        appended = np.zeros(len(self.item_ids), bool) if self.appended is None else np.asarray(self.appended, bool)
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "appended", appended)
        object.__setattr__(self, "level_sizes", tuple(int(size) for size in self.level_sizes))
        where = f"codebook {self.version}"
        if codes.shape != (len(self.item_ids), len(self.level_sizes)) or appended.shape != (len(self.item_ids),):
            raise DataError(
                f"{where}: {len(self.item_ids)} items and {len(self.level_sizes)} levels do not fit codes of shape "
                f"{codes.shape}"
            )
        if len(set(self.item_ids)) != len(self.item_ids):
            raise DataError(f"{where}: an item occurs twice")
        outside = (codes < 0) | (codes >= np.asarray(self.level_sizes))
        if outside.any():
            row, level = np.argwhere(outside)[0]
            raise DataError(
                f"{where}: item {self.item_ids[row]} has code {codes[row, level]} at level {level}, outside "
                f"0..{self.level_sizes[level] - 1}"
            )
        if self.collision_policy == LIST:
            return
        tuples = codes if self.ordered else np.sort(codes, axis=1)
        _, first, counts = np.unique(tuples, axis=0, return_index=True, return_counts=True)
        if (counts > 1).any():
            row = int(first[counts > 1][0])
            same = [self.item_ids[i] for i in np.flatnonzero((tuples == tuples[row]).all(axis=1))[:3]]
            raise DataError(f"{where}: items {', '.join(same)} share the codes {codes[row].tolist()}")

    def __len__(self) -> int:
        return len(self.item_ids)

    def to_table(self) -> pa.Table:
        """Rows of the ``semantic_ids`` table, one per item."""
        rows = len(self.item_ids)
        columns = {
            "item_id": self.item_ids,
            "codebook": [self.version] * rows,
            "codes": list(self.codes),
            "level_sizes": [self.level_sizes] * rows,
            "collision_policy": [self.collision_policy] * rows,
            "ordered": [self.ordered] * rows,
            "appended": self.appended,
        }
        return pa.table(columns, schema=SEMANTIC_IDS.arrow_schema())

    @classmethod
    def from_table(cls, rows: pa.Table, version: str) -> "Codebook":
        """The inverse of `to_table`: the rows of `version`, sorted by item_id.

        Raises:
            DataError: there is no such version, or its rows are inconsistent.
        """
        mine = rows.filter(pa.compute.equal(rows["codebook"], version)).sort_by("item_id")
        if mine.num_rows == 0:
            known = sorted(set(rows["codebook"].to_pylist())) or ["none"]
            raise DataError(f"no codebook {version!r} in semantic_ids (there are: {', '.join(known)})")
        sizes = {tuple(value) for value in mine["level_sizes"].to_pylist()}
        policies = set(mine["collision_policy"].to_pylist())
        ordered = set(mine["ordered"].to_pylist())
        codes = mine["codes"].to_pylist()
        if len(sizes) != 1 or len(policies) != 1 or len(ordered) != 1 or len({len(row) for row in codes}) != 1:
            raise DataError(f"codebook {version}: its rows disagree about levels, policy or order; fit it again")
        return cls(
            item_ids=mine["item_id"].to_pylist(),
            codes=np.asarray(codes, np.int32),
            level_sizes=sizes.pop(),
            version=version,
            collision_policy=policies.pop(),
            ordered=ordered.pop(),
            appended=np.asarray(mine["appended"].to_pylist(), bool),
        )
