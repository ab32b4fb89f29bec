"""What a client may ask, read strictly: every error names the field it is in."""

import json
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, ValidationInfo, field_validator

from infra.errors import UserError
from ray_jobs.recommenders.bounds import EARLIEST, LATEST, MOST_STRENGTH
from ray_jobs.registry.served import DEFAULT_EXCLUDE_SEEN, DEFAULT_K, DEFAULT_STRENGTH
from ray_jobs.steering.sentences import MOST_CHARACTERS

MOST_ASKS = 1000
MOST_ITEMS = 10_000
MOST_K = 1000
MOST_LISTED = 20_000
"""Items that the answers to one list of requests may have together."""
Moment = Annotated[int, Field(ge=EARLIEST, le=LATEST)]


class Ask(BaseModel, extra="forbid", frozen=True, strict=True):
    """One request for recommendations; the fields are those of the model's MLflow interface.

    Args:
        history: item ids, oldest first; unknown ids are skipped, and it may be empty.
        preference: a sentence; None and "" mean none.
        known: what is known of the user's preferences; it counts where there is no `preference`.
        strength: how strongly `preference` counts: 0 not at all, 1 as fitted on validation.
        k: items wanted.
        exclude_seen: leave out items of the history.
        times: second since 1970 of each item of the history, for recipes that read times.
        asked_at: the second the recommendation is wanted at; now where it is not given.
    """

    history: Annotated[tuple[str, ...], Field(max_length=MOST_ITEMS, fail_fast=True)]
    preference: Annotated[str | None, Field(max_length=MOST_CHARACTERS)] = None
    known: Annotated[str | None, Field(max_length=MOST_CHARACTERS)] = None
    strength: Annotated[float, Field(ge=0, le=MOST_STRENGTH, allow_inf_nan=False)] = DEFAULT_STRENGTH
    k: Annotated[int, Field(ge=1, le=MOST_K)] = DEFAULT_K
    exclude_seen: bool = DEFAULT_EXCLUDE_SEEN
    times: Annotated[tuple[Moment, ...], Field(max_length=MOST_ITEMS, fail_fast=True)] | None = None
    asked_at: Moment | None = None

    @field_validator("times")
    @classmethod
    def _one_for_each_item(cls, times: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        history = info.data.get("history", ())
        if times is not None and len(times) != len(history):
            raise ValueError(f"{len(times)} times came for {len(history)} items of the history")
        return times


class Refused(UserError):
    """A request that cannot be answered.

    Args:
        field: where the problem is, e.g. ``history.2``, or ``3.k`` in a list of requests; "" for the whole.
    """

    def __init__(self, field: str, problem: str, status: int = 422) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem
        self.status = status

    def within(self, place: int) -> "Refused":
        """The same problem as that of the request at `place` of a list."""
        return Refused(f"{place}.{self.field}".rstrip("."), self.problem, self.status)


_ONE = TypeAdapter(Ask)
_MANY = TypeAdapter(Annotated[list[Ask], Field(max_length=MOST_ASKS, fail_fast=True)])


def parse(body: bytes) -> Ask | list[Ask]:
    """One request, or a list of them.

    Raises:
        Refused: the body is not JSON (status 400), a field is missing, unknown or of the wrong kind, or a list asks for
            too many items (status 422).
    """
    try:
        if body.lstrip()[:1] != b"[":
            return _ONE.validate_json(body)
        asks = _MANY.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field, problem = ".".join(str(part)[:60] for part in first["loc"]), first["msg"].removeprefix("Value error, ")
        if first["type"] == "json_invalid":
            raise Refused("", f"the body is no JSON: {problem}", 400) from error
        raise Refused(field, f"{problem}; {_shown(first['input'])} was given") from error
    if (listed := sum(ask.k for ask in asks)) > MOST_LISTED:
        raise Refused("", f"the list asks for {listed} items together, more than {MOST_LISTED}: send several")
    return asks


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
