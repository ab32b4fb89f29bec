"""The columns of examples, batches and requests: each is declared here once, and everything else derives from it.

That is: slicing, joining, padding and files (`ray_jobs.data`), the values taken from a user's history, the MLflow
signature (`ray_jobs.registry.model`), and what a request may contain within which bounds
(`ray_jobs.recommenders.requests`, `ray_jobs.serving.parsing`).
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from schemas.sequences import SEQUENCES

Kind = Literal["item", "int64", "float32", "bool", "text"]

HISTORY = "history"
"""Axis of the positions of a history."""
PAD = -1
MOST_CHARACTERS = 4_000
"""Limit of a sentence; what people type is far shorter."""
MOST_CONDITION = 1_000
MOST_ITEMS = 10_000
MOST_STRENGTH = 10.0
"""Above it the sentence alone orders a list."""
EARLIEST, LATEST = -(2**40), 2**40
"""Seconds since 1970, some tens of thousands of years in both directions."""
_EXACT = 2**53
"""A float64 holds every integer up to here."""
_FROM_ARROW: Mapping[str, tuple[Kind, ...]] = {
    "string": ("item",),
    "timestamp[us, tz=UTC]": ("int64",),
    "float": ("float32",),
    "bool": ("bool", "int64", "float32"),
}
"""Kinds that hold every value of a column of `sequences`, by the type of its values; a float may be missing (NaN)."""
_SOURCES = {
    column.name: _FROM_ARROW[str(column.type.value_type)]
    for column in SEQUENCES.columns
    if pa.types.is_list(column.type) and str(column.type.value_type) in _FROM_ARROW
}


@dataclass(frozen=True, kw_only=True)
class FromRequest:
    """How requests supply a column.

    Args:
        name: in the model's MLflow signature and in requests to the server.
        meaning: of one value, for messages, such as "second since 1970".
        required: a request without it is refused.
        otherwise: returns the value for a request without it, instead of the column's `default`.
        low, high: bounds of a number.
        most: characters of a text, or values of a list, in a request to the server; batch jobs know no such limit.
        parameter: a parameter of the MLflow model, one value for all rows; in a request to the server it is a field.
    """

    name: str
    meaning: str
    required: bool = False
    otherwise: Callable[[], int | float | str] | None = None
    low: float = -_EXACT
    high: float = _EXACT
    most: int = MOST_ITEMS
    parameter: bool = False


@dataclass(frozen=True, kw_only=True)
class ExampleColumn:
    """One feature of an example.

    Args:
        name: in examples, batches and files.
        kind: type of one value. An ``item`` is an index into the catalogue, in requests an item id.
        along: axis of a list, named after its first column; the lists of one axis have equal lengths. "" for a
            single value.
        width: length of a vector value; 0 for scalars.
        pad: value that pads the rows of a batch to equal length.
        default: value of examples without the column when joined with examples that have it. None: drop the column.
        required: every example has the column, if need be filled with `default`.
        source: column of the table `sequences`, with a value for each item, that it is read from: along `HISTORY` the
            values before the target, else the value at the target's position. "" if it does not come from there.
        batched: part of batches and files.
        request: how requests supply it, if they do.

    Raises:
        ValueError: the declaration contradicts itself, or nothing can supply the values that it needs.
    """

    name: str
    kind: Kind
    along: str = ""
    width: int = 0
    pad: int | float = 0
    default: int | float | str | None = None
    required: bool = False
    source: str = ""
    batched: bool = True
    request: FromRequest | None = None

    def __post_init__(self) -> None:
        if self.kind == "text" and (self.along or self.width):
            raise ValueError(f"column {self.name}: a text is a single value")
        if self.kind == "item" and self.width:
            raise ValueError(f"column {self.name}: items have no width; declare an axis for a list of items")
        if self.required and not self.source and (self.along or self.default is None):
            raise ValueError(f"column {self.name}: a required column needs a source, or a default for a single value")
        if self.source:
            self._require_source()
        if self.request is not None and self.request.parameter:
            single = self.kind != "item" and not self.along and not self.width
            if not single or self.default is None:
                raise ValueError(f"column {self.name}: a parameter is a number, bool or text with a default")

    def _require_source(self) -> None:
        kinds = _SOURCES.get(self.source)
        if kinds is None:
            raise ValueError(
                f"column {self.name}: sequences has no column {self.source!r} with a value for each item; it has "
                f"{', '.join(_SOURCES)}"
            )
        if self.kind not in kinds or self.width or self.along not in ("", HISTORY):
            raise ValueError(
                f"column {self.name}: the source {self.source!r} gives single values of kind {' or '.join(kinds)}, "
                f"along {HISTORY!r} or at the target"
            )

    @property
    def dtype(self) -> str:
        """Numpy's name of the type in arrays and tensors."""
        return "int64" if self.kind == "item" else self.kind

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one value."""
        return (self.width,) if self.width else ()

    def missing(self) -> int | float | str | tuple[int | float | str, ...] | None:
        """The value for a request without the column.

        None if the example has no such column then, or the column's default is an item, which requests name by its id.
        """
        if self.along:
            return None
        if self.request is not None and self.request.otherwise is not None:
            return self.request.otherwise()
        if self.kind == "item" or self.default is None:
            return None
        return (self.default,) * self.width if self.width else self.default


def _now() -> int:
    return int(time.time())


_SENTENCE = "sentence"
_SECOND = "second since 1970"
COLUMNS: dict[str, ExampleColumn] = {
    column.name: column
    for column in (
        ExampleColumn(
            name=HISTORY,
            kind="item",
            along=HISTORY,
            pad=PAD,
            required=True,
            source="item_ids",
            request=FromRequest(name="history", meaning="item id", required=True),
        ),
        ExampleColumn(name="targets", kind="item", default=PAD, required=True, source="item_ids"),
        ExampleColumn(
            name="preferences",
            kind="text",
            default="",
            required=True,
            request=FromRequest(name="preference", meaning=_SENTENCE, most=MOST_CHARACTERS),
        ),
        # The user's known preferences, used when the request has no sentence.
        ExampleColumn(
            name="known",
            kind="text",
            default="",
            batched=False,
            request=FromRequest(name="known", meaning=_SENTENCE, most=MOST_CHARACTERS),
        ),
        # Weight of the sentence in the steering layer: 0 ignores it, 1 is the weight fitted on validation.
        ExampleColumn(
            name="strength",
            kind="float32",
            default=1.0,
            request=FromRequest(name="strength", meaning="strength", low=0, high=MOST_STRENGTH, parameter=True),
        ),
        ExampleColumn(
            name="times",
            kind="int64",
            along=HISTORY,
            source="occurred_at",
            request=FromRequest(name="times", meaning=_SECOND, low=EARLIEST, high=LATEST),
        ),
        # Time of the recommendation; in examples the target's time.
        ExampleColumn(
            name="asked_at",
            kind="int64",
            source="occurred_at",
            request=FromRequest(name="asked_at", meaning=_SECOND, otherwise=_now, low=EARLIEST, high=LATEST),
        ),
        # Rules of a request, see `ray_jobs.recommenders.rules`: the only items that may come, items that may not, and a
        # condition on the attributes of those that may.
        ExampleColumn(
            name="allow",
            kind="item",
            along="allow",
            pad=PAD,
            batched=False,
            request=FromRequest(name="allow", meaning="item id"),
        ),
        ExampleColumn(
            name="deny",
            kind="item",
            along="deny",
            pad=PAD,
            batched=False,
            request=FromRequest(name="deny", meaning="item id"),
        ),
        ExampleColumn(
            name="where",
            kind="text",
            default="",
            batched=False,
            request=FromRequest(name="where", meaning="condition", most=MOST_CONDITION),
        ),
        # True where the preference rejects the target.
        ExampleColumn(name="negative", kind="bool", default=False),
        # All items before the target's position, also those outside of the history's window.
        ExampleColumn(name="seen", kind="item", along="seen", pad=PAD),
        # Origin of an example: index into `Histories`, and the target's position there.
        ExampleColumn(name="users", kind="int64", batched=False),
        ExampleColumn(name="positions", kind="int64", batched=False),
    )
}


def requested() -> list[tuple[ExampleColumn, FromRequest]]:
    """The columns that a request may supply, and how.

    Raises:
        ValueError: a list is declared along an axis whose own column requests cannot supply.
    """
    found = [(column, column.request) for column in COLUMNS.values() if column.request is not None]
    names = {column.name for column, _ in found}
    for column, _ in found:
        if column.along and column.along not in names:
            raise ValueError(f"column {column.name}: declare the column {column.along}, which its axis is named after")
    return found


def sources() -> list[str]:
    """The columns of the table `sequences` that columns are read from."""
    return list(dict.fromkeys(column.source for column in COLUMNS.values() if column.source))
