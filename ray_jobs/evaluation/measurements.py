"""Measured metrics per unit (such as a user), in memory and as rows of the table `measurements`.

Intervals, paired tests and slices work for any task.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.evaluation.metrics import FloatArray, Interval, Paired, bootstrap_each, paired
from ray_jobs.evaluation.slices import order_of
from schemas.errors import DataError
from schemas.measurements import MEASUREMENTS

_BLOCK = ["model", "condition", "metric"]
_GIVEN = ("model", "task", "split", "condition", "protocol")


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """One model on one split of a task under one condition.

    Args:
        model: name with the run identity.
        protocol: how targets were held out and what was ranked.
        units: ids in ascending order.
        targets: labels of the units; null for a task without labels.
        slices: by kind of group, the group of each unit, str[U].
        values: by metric, float64[U].

    Raises:
        ValueError: units are not in ascending order, or one is there twice; two models are paired by their order.
    """

    model: str
    task: str
    split: str
    condition: str
    protocol: str
    units: pa.Array = field(repr=False)
    targets: pa.Array = field(repr=False)
    slices: Mapping[str, npt.NDArray[np.str_]] = field(repr=False)
    values: Mapping[str, FloatArray] = field(repr=False)

    def __post_init__(self) -> None:
        if len(self) > 1 and not pc.all(pc.less(self.units[:-1], self.units[1:])).as_py():
            raise ValueError(f"{self.model}: sort the units, and the values with them; each unit is there once")

    def __len__(self) -> int:
        return len(self.units)

    def intervals(self, metrics: Sequence[str], inside: npt.NDArray[np.bool_] | None = None) -> dict[str, Interval]:
        """Means with 95 % intervals over all units, or over those `inside`, bool[U]."""
        chosen = slice(None) if inside is None else inside
        return bootstrap_each({name: self.values[name][chosen] for name in metrics})

    def groups(self) -> Iterator[tuple[str, str, npt.NDArray[np.bool_]]]:
        """Kind and name of each group that is not empty, and which units are in it, bool[U]."""
        return groups_of(self.slices)


def groups_of(
    slices: Mapping[str, npt.NDArray[np.str_]],
) -> Iterator[tuple[str, str, npt.NDArray[np.bool_]]]:
    """See `Measured.groups`."""
    pairs = [(kind, str(name)) for kind, names in slices.items() for name in np.unique(names)]
    for kind, name in sorted(pairs, key=lambda pair: order_of(*pair)):
        yield kind, name, slices[kind] == name


def require_same_units(one: Measured, other: Measured) -> None:
    """Check that two models can be compared unit by unit.

    Raises:
        DataError: units, targets, task, split or protocol differ.
    """
    if told := objection(one, other) or ("" if one.units.equals(other.units) else _others(one, other)):
        raise DataError(told)


def compare(one: Measured, other: Measured, metric: str) -> Paired:
    """The paired difference `one` - `other` in `metric`, over the units that both were measured on.

    Raises:
        DataError: there is no such unit, or the targets of one, task, split or protocol differ.
    """
    if told := objection(one, other):
        raise DataError(told)
    mine, theirs = (mask.to_numpy(zero_copy_only=False) for mask in _shared(one, other))
    return paired(one.values[metric][mine], other.values[metric][theirs])


def objection(one: Measured, other: Measured) -> str:
    """Why `compare` refuses the two; empty if it does not."""
    for what, word in (("task", "for"), ("split", "on"), ("protocol", "by")):
        mine, theirs = getattr(one, what), getattr(other, what)
        if mine != theirs:
            return (
                f"{one.model} was evaluated {word} the {what} {mine!r} and {other.model} {word} {theirs!r}, whose "
                "numbers do not compare: run the evaluate stage for both with the same settings"
            )
    mine, theirs = _shared(one, other)
    if not pc.any(mine).as_py():
        return f"{one.model} and {other.model} were evaluated on no user in common: run evaluate for both"
    # Without labels a model in memory has the type null, and one from the table the type string.
    if not one.targets.filter(mine).cast(pa.string()).equals(other.targets.filter(theirs).cast(pa.string())):
        return _others(one, other)
    return ""


def _shared(one: Measured, other: Measured) -> tuple[pa.Array, pa.Array]:
    """Which units of each were measured in both."""
    return pc.is_in(one.units, other.units), pc.is_in(other.units, one.units)


def _others(one: Measured, other: Measured) -> str:
    return (
        f"{one.model} and {other.model} were evaluated on other users or targets: run the evaluate stage for both "
        "on the same sequences"
    )


def to_rows(measured: Sequence[Measured]) -> pa.Table:
    """Rows of the table `measurements` without ``partition_date``."""
    schema = pa.schema([each for each in MEASUREMENTS.arrow_schema() if each.name != "partition_date"])
    parts = [schema.empty_table()]
    for one in measured:
        size, kinds = len(one), list(one.slices)
        names = np.stack([one.slices[kind] for kind in kinds], axis=1).ravel() if kinds else np.zeros(0, dtype=str)
        groups = pa.MapArray.from_arrays(
            pa.array(np.arange(size + 1, dtype=np.int32) * len(kinds)),
            pa.array(kinds * size, pa.string()),
            pa.array(names, pa.string()),
        )
        for metric, values in one.values.items():
            columns = {name: pa.repeat(pa.scalar(getattr(one, name)), size) for name in _GIVEN}
            columns |= {"metric": pa.repeat(pa.scalar(metric), size), "value": pa.array(values, from_pandas=True)}
            columns |= {"unit_id": one.units, "target": one.targets, "slices": groups}
            parts.append(pa.table([columns[each.name].cast(each.type) for each in schema], schema=schema))
    return pa.concat_tables(parts)


def from_rows(rows: pa.Table, task: str, split: str) -> list[Measured]:
    """The measurements of a task's split in rows of the table `measurements`, sorted by model and condition.

    Raises:
        DataError: the metrics of a model have different units or protocols.
    """
    wanted = rows.filter((pc.field("task") == task) & (pc.field("split") == split))
    wanted = wanted.sort_by([(name, "ascending") for name in (*_BLOCK, "unit_id")]).combine_chunks()
    found: dict[tuple[str, str], tuple[pa.Table, dict[str, FloatArray]]] = {}
    start = 0
    for model, condition, metric, stop in _blocks(wanted):
        block = wanted.slice(start, stop - start)
        first, values = found.setdefault((model, condition), (block, {}))
        if not block["unit_id"].equals(first["unit_id"]):
            raise DataError(
                f"table measurements has {metric} of {model} ({condition}) for other units than the metrics before it: "
                "run the stage that measured it again"
            )
        values[metric] = block["value"].to_numpy()
        start = stop
    return [_measured(block, values) for block, values in found.values()]


def _blocks(rows: pa.Table) -> Iterator[tuple[str, str, str, int]]:
    """Model, condition and metric of each block of equal rows, and the end of the block."""
    if not rows.num_rows:
        return
    columns = [rows[name].combine_chunks().dictionary_encode() for name in _BLOCK]
    codes = np.stack([column.indices.to_numpy() for column in columns])
    ends = np.flatnonzero((codes[:, 1:] != codes[:, :-1]).any(axis=0)) + 1
    for stop in [*ends.tolist(), rows.num_rows]:
        model, condition, metric = (column[stop - 1].as_py() for column in columns)
        yield model, condition, metric, stop


def _measured(block: pa.Table, values: Mapping[str, FloatArray]) -> Measured:
    protocols = block["protocol"].unique().to_pylist()
    model = block["model"][0].as_py()
    if len(protocols) > 1:
        raise DataError(f"table measurements has {model} by several protocols, {', '.join(sorted(protocols))}")
    given = {name: block[name][0].as_py() for name in _GIVEN}
    maps = block["slices"].combine_chunks()
    kinds = sorted(set(maps.keys.to_pylist()))
    slices = {
        kind: np.array(pc.fill_null(pc.map_lookup(maps, pa.scalar(kind), "first"), "").to_pylist()) for kind in kinds
    }
    units, targets = (block[name].combine_chunks() for name in ("unit_id", "target"))
    return Measured(**given, units=units, targets=targets, slices=slices, values=values)
