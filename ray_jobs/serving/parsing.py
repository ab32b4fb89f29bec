"""Requests for recommendations: strict parsing of JSON, with errors that name the field."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo, create_model
from pydantic import field_validator as validator

from infra.errors import UserError
from ray_jobs.registry.served import DEFAULT_EXCLUDE_SEEN, DEFAULT_K
from schemas.columns import ExampleColumn, FromRequest, requested

MOST_REQUESTS = 1000
MOST_K = 1000
MOST_LISTED = 20_000
"""Maximum sum of `k` over the requests of one list."""


@dataclass(frozen=True)
class RecommendRequest:
    """One request for recommendations.

    Args:
        given: values by the request names of `schemas.columns`, which are those of the model's MLflow interface;
            ``history`` at least.
        k: number of items wanted.
        exclude_seen: leave out the items of the history.
    """

    given: Mapping[str, Any]
    k: int = DEFAULT_K
    exclude_seen: bool = DEFAULT_EXCLUDE_SEEN

    def value(self, column: ExampleColumn) -> Any:
        """The request's value of `column`, or else the default; None if there is neither."""
        value = self.given.get(column.request.name) if column.request is not None else None
        if value is None:
            return column.missing()
        return value.strip() if column.kind == "text" else value


class RequestError(UserError):
    """A request that cannot be answered.

    Args:
        field: the wrong field, e.g. ``history.2``, or ``3.k`` in a list of requests; "" for the whole body.
    """

    def __init__(self, field: str, problem: str, status: int = 422) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem
        self.status = status

    def within(self, place: int) -> "RequestError":
        """The same error for the request at `place` of a list."""
        return RequestError(f"{place}.{self.field}".rstrip("."), self.problem, self.status)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    k: Annotated[int, Field(ge=1, le=MOST_K)] = DEFAULT_K
    exclude_seen: bool = DEFAULT_EXCLUDE_SEEN

    def request(self) -> RecommendRequest:
        given = {name: value for name, value in self if name not in _Body.model_fields and value is not None}
        return RecommendRequest(given, self.k, self.exclude_seen)


_KINDS: Mapping[str, type] = {"item": str, "text": str, "int64": int, "float32": float, "bool": bool}


def _field(column: ExampleColumn, asked: FromRequest) -> Any:
    kind: Any = _KINDS[column.kind]
    if column.kind == "text":
        kind = Annotated[kind, Field(max_length=asked.most)]
    elif column.kind == "int64":
        kind = Annotated[kind, Field(ge=asked.low, le=asked.high)]
    elif column.kind == "float32":
        kind = Annotated[kind, Field(ge=asked.low, le=asked.high, allow_inf_nan=False)]
    if column.width:
        kind = Annotated[tuple[kind, ...], Field(min_length=column.width, max_length=column.width)]
    if column.along:
        kind = Annotated[tuple[kind, ...], Field(max_length=asked.most, fail_fast=True)]
    if asked.required:
        return kind
    return (kind, column.default) if asked.parameter else (kind | None, None)


@cache
def _readers(
    columns: tuple[tuple[ExampleColumn, FromRequest], ...],
) -> tuple[TypeAdapter[_Body], TypeAdapter[list[_Body]]]:
    """The parsers of one request and of a list of requests."""
    leaders: dict[str, str] = {}
    leader_of = {asked.name: leaders.setdefault(column.along, asked.name) for column, asked in columns if column.along}

    def one_for_each(values: tuple[Any, ...] | None, info: ValidationInfo) -> tuple[Any, ...] | None:
        name = str(info.field_name)
        first = info.data.get(leader_of[name])
        if values is not None and first is not None and len(values) != len(first):
            raise ValueError(f"{len(values)} {name} came for {len(first)} items of the {leader_of[name]}")
        return values

    followers = [name for name, leader in leader_of.items() if name != leader]
    body = create_model(
        "RecommendRequest",
        __base__=_Body,
        __validators__={"one_for_each": validator(*followers)(one_for_each)} if followers else {},
        **{asked.name: _field(column, asked) for column, asked in columns},
    )
    bodies: Any = Annotated[list[body], Field(max_length=MOST_REQUESTS, fail_fast=True)]  # type: ignore[valid-type]
    return TypeAdapter(body), TypeAdapter(bodies)


def parse(body: bytes) -> RecommendRequest | list[RecommendRequest]:
    """Parse one request, or a list of requests.

    Raises:
        RequestError: the body is not JSON (status 400), a field is missing, unknown or of the wrong type, or a list
            wants too many items (status 422).
    """
    one, many = _readers(tuple(requested()))
    try:
        if body.lstrip()[:1] != b"[":
            return one.validate_json(body).request()
        found = [one.request() for one in many.validate_json(body)]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field, problem = ".".join(str(part)[:60] for part in first["loc"]), first["msg"].removeprefix("Value error, ")
        if first["type"] == "json_invalid":
            raise RequestError("", f"the body is not JSON: {problem}", 400) from error
        raise RequestError(field, f"{problem}; {_shown(first['input'])} was given") from error
    if (listed := sum(request.k for request in found)) > MOST_LISTED:
        raise RequestError("", f"the list asks for {listed} items together, more than {MOST_LISTED}: send several")
    return found


def _shown(value: object) -> str:
    """The beginning of `value` as JSON; the rest is not encoded, which takes long for a large body."""
    text = ""
    for piece in json.JSONEncoder(default=str).iterencode(value):
        text += piece
        if len(text) > 60:
            return f"{text[:57]}..."
    return text
