"""The codebook: items and their code tuples, one version."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ray_jobs.tokenizers.collisions import LIST
from schemas.errors import DataError
from schemas.semantic_ids import SEMANTIC_IDS


@dataclass(frozen=True, eq=False)
class Codebook:
    """Item -> code tuple; trie and set index are derived from it and only from it.

    Args:
        item_ids: items, each once.
        codes: int32[N, H]; level h lies in ``range(level_sizes[h])``.
        level_sizes: vocabulary of each level, room for items that are appended later included.
        version: name of the version.
        collision_policy: how equal tuples were told apart, e.g. ``extra_level`` (a counter as the last level); under
            ``list`` they were not, and a tuple may stand for several items.
        ordered: False when a tuple is a set, so that equal sets count as equal codes.
        appended: bool[N]: added after the version was fitted; all False when left out.

    Raises:
        DataError: shapes do not fit, a code is out of range, or two items share a code tuple that may not.
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
            raise DataError(f"{where}: an item stands in it twice")
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
        return pa.Table.from_arrays(
            [
                pa.array(self.item_ids, pa.string()),
                pa.repeat(pa.scalar(self.version, pa.string()), rows),
                pa.array(list(self.codes), pa.list_(pa.int32())),
                pa.array([self.level_sizes] * rows, pa.list_(pa.int32())),
                pa.repeat(pa.scalar(self.collision_policy, pa.string()), rows),
                pa.repeat(pa.scalar(self.ordered), rows),
                pa.array(self.appended, pa.bool_()),
            ],
            schema=SEMANTIC_IDS.arrow_schema(),
        )

    @classmethod
    def from_table(cls, rows: pa.Table, version: str) -> "Codebook":
        """The inverse of `to_table`: the rows of `version`, sorted by item_id.

        Raises:
            DataError: no such version, or its rows do not make a codebook.
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
