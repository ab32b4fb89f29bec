"""What settings may be: bounds as types, and a base that holds settings to the types of their fields."""

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
    """Base of settings dataclasses. A value is of its field's type, or is turned into it where that loses nothing.

    A subclass with checks over several fields makes them in a `__post_init__` of its own, after that of this class.

    Raises:
        SettingError: a value is of another type or out of bounds; the message names the setting with its section.
    """

    section: ClassVar[str] = ""
    """Where the settings stand in a profile, and what their names begin with in messages."""

    def __post_init__(self) -> None:
        given = {one.name: getattr(self, one.name) for one in fields(self)}  # type: ignore[arg-type]
        kind: Any = type(self)
        try:
            found = _adapter(kind).validate_python(given)
        except ValidationError as error:
            raise SettingError(told(error, self._named)) from error
        for name in given:
            object.__setattr__(self, name, getattr(found, name))

    def _named(self, name: str) -> str:
        """How messages call a setting."""
        return f"{self.section}.{name}" if self.section else name


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """What validates the fields of a settings dataclass; `__post_init__` is none of its own, so that it can ask it."""
    hints = get_type_hints(kind, include_extras=True)
    plain: list[tuple[str, Any, Any]] = [(one.name, hints[one.name], field()) for one in fields(kind)]
    return TypeAdapter(make_dataclass(kind.__name__, plain, kw_only=True))


def told(error: ValidationError, named: Callable[[str], str] = str) -> str:
    """What is wrong with which settings, in a line.

    Args:
        named: how a setting is called, given the dotted place of its value.
    """
    return "; ".join(_told(one, named(".".join(map(str, one["loc"])))) for one in error.errors())


def _told(error: "ErrorDetails", name: str) -> str:
    limits: Mapping[str, Any] = error.get("ctx", {})
    for key, words in _WORDS.items():
        if key in limits:
            shown = repr(error["input"])
            return f"{name} is {shown[:_SHOWN]}, but must be {words} {limits[key]:g}"
    return f"{name}: {error['msg']}"
