"""Bounds of settings as types, and the base class that checks settings against the types of their fields."""

from collections.abc import Callable, Mapping
from dataclasses import field, fields, make_dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

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
    plain: list[tuple[str, Any, Any]] = [(one.name, hints[one.name], field()) for one in fields(kind)]
    return TypeAdapter(make_dataclass(kind.__name__, plain, kw_only=True))


def problems(error: ValidationError, named: Callable[[str], str] = str) -> str:
    """The problems in one line.

    Args:
        named: returns the name of a setting, given its dotted location.
    """
    return "; ".join(_problem(one, named(".".join(map(str, one["loc"])))) for one in error.errors())


def _problem(error: "ErrorDetails", name: str) -> str:
    limits: Mapping[str, Any] = error.get("ctx", {})
    for key, words in _WORDS.items():
        if key in limits:
            shown = repr(error["input"])
            return f"{name} is {shown[:_SHOWN]}, but must be {words} {limits[key]:g}"
    return f"{name}: {error['msg']}"
