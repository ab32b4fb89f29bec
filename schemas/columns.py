"""The columns of examples, batches and requests. Each is declared here, once; everything else follows from it.

A declaration says how examples are sliced, joined, padded and written to files (`ray_jobs.data`), which values of a
user's history they take, what the model's MLflow signature lists (`ray_jobs.registry.model`), and what a request may
bring within which bounds (`ray_jobs.recommenders.requests`, `ray_jobs.serving.asks`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["item", "int64", "float32", "bool", "text"]

HISTORY = "history"
"""The axis of the positions of a history."""
PAD = -1
MOST_CHARACTERS = 4_000
"""A sentence is read up to here; what a person types is far shorter."""
MOST_ITEMS = 10_000
MOST_STRENGTH = 10.0
"""Above it words alone order a list."""
EARLIEST, LATEST = -(2**40), 2**40
"""Seconds since 1970, some tens of thousands of years to either side."""
_EXACT = 2**53
"""Up to here a float holds every whole number."""


@dataclass(frozen=True, kw_only=True)
class FromRequest:
    """How a column comes with a request.

    Args:
        name: in the model's MLflow signature and in a request to the server.
        meaning: of one value, for messages: "second since 1970".
        required: a request must bring it.
        otherwise: makes the value for a request that does not bring it; without, the column's `default` stands in.
        low, high: bounds of a number.
        most: characters of a text, or values of a list.
        parameter: the MLflow model takes one value for all rows; the server takes one with each request all the same.
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
    """One declared feature of an example.

    Args:
        name: in examples, batches and files.
        kind: of one value. An ``item`` is an index into the catalogue, and an item id outside.
        along: axis that an example has several values along; columns of one axis have equally many. "" for one value.
        width: numbers in one value, for vectors; 0 for plain values.
        pad: fills the rows of a batch up to the longest.
        default: of examples that lack the column where others have it; None: then nobody has it.
        required: examples always have it, by default with `default`.
        source: column of the table `sequences` that it is read from: along `HISTORY` the values before the target,
            else the value at the target's position. "" where something else makes it.
        batched: batches and files carry it.
        request: how requests bring it; None where they do not.
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
        if self.kind == "text" and (self.along or self.width or (self.required and self.default is None)):
            raise ValueError(f"column {self.name}: a text is one value per example, and a required one has a default")
        if self.kind == "item" and self.width:
            raise ValueError(f"column {self.name}: items have no width; declare an axis for several of them")

    @property
    def dtype(self) -> str:
        """Of its values in arrays and tensors, by numpy's name."""
        return "int64" if self.kind == "item" else self.kind

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one value."""
        return (self.width,) if self.width else ()

    def missing(self) -> int | float | str | None:
        """The value where a request does not bring the column; None where the column is absent then."""
        if self.along:
            return None
        if self.request is not None and self.request.otherwise is not None:
            return self.request.otherwise()
        return self.default


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
        # What is known of the user's preferences; it counts where the request brings no sentence.
        ExampleColumn(
            name="known",
            kind="text",
            default="",
            batched=False,
            request=FromRequest(name="known", meaning=_SENTENCE, most=MOST_CHARACTERS),
        ),
        # How strongly the steering layer counts a sentence: 0 not at all, 1 as fitted on validation.
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
        # When the recommendation is wanted; in examples the target's time.
        ExampleColumn(
            name="asked_at",
            kind="int64",
            source="occurred_at",
            request=FromRequest(name="asked_at", meaning=_SECOND, otherwise=_now, low=EARLIEST, high=LATEST),
        ),
        # True where the preference rejects the target.
        ExampleColumn(name="negative", kind="bool", default=False),
        # Every item before the target's position, whether the window of the history still holds it or not.
        ExampleColumn(name="seen", kind="item", along="seen", pad=PAD),
        # Where an example comes from: index into `Histories`, and the target's position there.
        ExampleColumn(name="users", kind="int64", batched=False),
        ExampleColumn(name="positions", kind="int64", batched=False),
    )
}


def requested() -> list[tuple[ExampleColumn, FromRequest]]:
    """The columns that a request may bring, and how."""
    return [(column, column.request) for column in COLUMNS.values() if column.request is not None]


def sources() -> list[str]:
    """Columns of the table `sequences`, with a value for each item, that columns are read from."""
    return list(dict.fromkeys(column.source for column in COLUMNS.values() if column.source))
