"""Bounds of settings as types, and the base class that checks settings against the types of their fields.

Numbers are finite, unless a type says ``allow_inf_nan=True``.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import field, fields, make_dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from infra.errors import SettingError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
InnerShare = Annotated[float, Field(gt=0, lt=1)]
PositiveOrInfinite = Annotated[float, Field(gt=0, allow_inf_nan=True)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""What every library takes, also after small numbers were added to it."""
Port = Annotated[int, Field(ge=1, le=65535)]

_SHOWN = 60
_WORDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


class Bounded:
    """Base of settings dataclasses: converts values to their fields' types where nothing is lost, and checks them.

    A subclass checks combinations of fields in its own `__post_init__`, after calling this one.

    Raises:
        SettingError: a value has the wrong type or is out of bounds; the message names the setting with its section.
    """

    section: ClassVar[str] = ""
    """Name under ``[stages.*]`` in a profile, and prefix of the settings' names in messages and overrides."""

    def __post_init__(self) -> None:
        given = {one.name: getattr(self, one.name) for one in fields(self)}  # type: ignore[arg-type]
        kind: Any = type(self)
        try:
            found = _adapter(kind).validate_python(given)
        except ValidationError as error:
            raise SettingError(problems(error, self._named)) from error
        for name in given:
            object.__setattr__(self, name, getattr(found, name))

    def _named(self, name: str) -> str:
        """Name of a setting in messages."""
        return f"{self.section}.{name}" if self.section else name


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Validates the fields of a settings dataclass, through a copy without `__post_init__`, which calls this."""
    hints = get_type_hints(kind, include_extras=True)
    plain: list[tuple[str, Any, Any]] = [(one.name, _also_as_text(hints[one.name]), field()) for one in fields(kind)]
    finite = {"__pydantic_config__": ConfigDict(allow_inf_nan=False)}
    return TypeAdapter(make_dataclass(kind.__name__, plain, kw_only=True, namespace=finite))


def _also_as_text(hint: Any) -> Any:
    """The type; one of lists or tables also takes their JSON, as environment variables give it."""
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return Annotated[hint, BeforeValidator(_from_json)] if get_origin(plain) in (tuple, Mapping) else hint


def _from_json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def problems(error: ValidationError, named: Callable[[str], str] = str) -> str:
    """The problems in one line.

    Args:
        named: returns the name of a setting, given its dotted location.
    """
    found = error.errors()
    # A list without its wrong values may be too short, which is no problem of its own.
    outer = {one["loc"][:end] for one in found for end in range(1, len(one["loc"]))}
    return "; ".join(_problem(one, named(".".join(map(str, one["loc"])))) for one in found if one["loc"] not in outer)


def _problem(error: "ErrorDetails", name: str) -> str:
    limits: Mapping[str, Any] = error.get("ctx", {})
    if error["type"] == "finite_number":
        return f"{name} is {brief(error['input'])}, but must be a finite number"
    for key, words in _WORDS.items():
        if key in limits:
            return f"{name} is {brief(error['input'])}, but must be {words} {number(limits[key])}"
    return f"{name}: {error['msg']}"


def brief(value: object) -> str:
    """A value in a message, cut if it is long."""
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def number(value: float) -> str:
    """A bound in words, whole numbers with all their digits."""
    return f"{value:,}" if value == int(value) and abs(value) >= 10_000 else f"{value:g}"
