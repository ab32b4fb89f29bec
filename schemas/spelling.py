"""How a data set writes ratings, numbers and dates, as stated at registration."""

import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from schemas.errors import DataError

STARS, LIKE, NONE = "stars", "like", "none"
LIKES = ("true", "t", "yes", "y", "1", "1.0", "like", "liked", "up", "positive", "recommended")
DISLIKES = (
    *("false", "f", "no", "n", "0", "0.0", "-1", "-1.0"),
    *("dislike", "disliked", "down", "negative", "not recommended"),
)
ISO, DAY_FIRST, MONTH_FIRST = "iso", "dmy", "mdy"
UNITS = {"seconds": 1_000_000, "milliseconds": 1_000, "microseconds": 1, "nanoseconds": 0.001}
"""Microseconds in a unit of time since 1970."""
EPOCH = (300_000_000, 1_900_000_000)
"""Seconds since 1970, for 1979 to 2030. Numbers in this range, also in milliseconds and finer units, cannot be a date
in digits such as 2024013110 or as days since 1900."""

# Regular expressions that mean the same in Java and in Python; all match whole texts.
NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
COMMA_NUMBER = r"^[+-]?([0-9]{1,3}(\.[0-9]{3})+|[0-9]+)(,[0-9]+)?$"
ZONE = r"(Z|UTC|GMT|[+-][0-9]{2}(:?[0-9]{2})?|[A-Z][A-Za-z]+/[A-Za-z_/+-]{2,40})"
_CLOCK = r"[0-9]{1,2}(:[0-9]{1,2}(:[0-9]{1,2}(\.[0-9]{1,9})?)?)?"
ISO_TIME = rf"^[0-9]{{4}}-[0-9]{{1,2}}-[0-9]{{1,2}}([T ]{_CLOCK}( ?{ZONE})?)?$"
ZONED = rf"^.{{11,40}}[0-9] ?{ZONE}$"
NO_SECONDS = r"([T ][0-9]{1,2}:[0-9]{1,2})( ?[Z+-])"
YEAR_FIRST = r"^([0-9]{4})[/.]([0-9]{1,2})[/.]([0-9]{1,2})(.*)$"
YEAR_LAST = r"^([0-9]{1,2})[-/.]([0-9]{1,2})[-/.]([0-9]{4})(.*)$"
EIGHT_DIGITS = r"^(1[0-9]{3}|2[01][0-9]{2})(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])$"
NO_DAY = r"^[0-9]{4}(-[0-9]{1,2})?$"
NO_DATE = r"^T?[0-9]{1,2}:[0-9]{2}.{0,30}$"

_SCALE = re.compile(r"(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)-(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)")
_LETTERS = frozenset("yuMLdHhKkmsSaXxZzVO")
SCALES_TOLD = "stars (0.5 to 5), LOW-HIGH such as 1-10 or 0-100, like (like or dislike), or none (clicks, purchases)"
DATES_TOLD = (
    "iso (2024-01-31T10:00:00Z, or a number since 1970), dmy, mdy, seconds, milliseconds, microseconds, nanoseconds, "
    "or a pattern such as 'dd.MM.yyyy HH:mm'"
)


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """The formats of ratings, dates and numbers in the files of a data set.

    Args:
        scale: of ratings: ``stars``, 0.5 to 5, unchanged; ``LOW-HIGH``, converted to 1 to 5 stars; ``like``, converted
            to 5 stars or 1; ``none`` for feeds without ratings.
        dates: ``iso``; ``dmy`` or ``mdy`` for dates such as 31/01/2024; the unit of numbers since 1970, if their size
            does not show it; or a Spark date pattern. Dates with the year first are always recognised.
        time_zone: of times without one; a day without a time is midnight UTC.
        decimal: ``.`` or ``,``.

    Raises:
        DataError: a value is not one of these.
    """

    scale: str = STARS
    dates: str = ISO
    time_zone: str = "UTC"
    decimal: str = "."

    def __post_init__(self) -> None:
        if self.scale not in (STARS, LIKE, NONE) and self.bounds() is None:
            raise DataError(f"scale {self.scale[:40]!r} is none of: {SCALES_TOLD}")
        if self.dates not in (ISO, DAY_FIRST, MONTH_FIRST, *UNITS) and not _is_pattern(self.dates):
            raise DataError(f"dates {self.dates[:40]!r} is none of: {DATES_TOLD}")
        if self.decimal not in (".", ","):
            raise DataError(f"decimal {self.decimal[:40]!r} is neither '.' nor ','")
        try:
            ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError) as error:
            raise DataError(
                f"time_zone {self.time_zone[:40]!r} is not a time zone such as Europe/Berlin or UTC"
            ) from error

    @property
    def rated(self) -> bool:
        """Whether there are ratings."""
        return self.scale != NONE

    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest rating of a scale ``LOW-HIGH``, else None."""
        found = _SCALE.fullmatch(self.scale)
        if found is None:
            return None
        low, high = float(found[1]), float(found[2])
        return (low, high) if low < high else None


def counted(number: float) -> float | None:
    """Seconds since 1970 from a number whose size shows its unit, else None."""
    return next((number / unit for unit in (1, 1e3, 1e6, 1e9) if EPOCH[0] <= number / unit < EPOCH[1]), None)


def _is_pattern(text: str) -> bool:
    """Whether a text is a date pattern with year, month and day."""
    bare = re.sub(r"'[^']*'", "", text)
    letters = {letter for letter in bare if letter.isalpha()}
    if (
        not letters <= _LETTERS
        or "'" in bare
        or not {"d"} < letters
        or not letters & set("yu")
        or not letters & set("ML")
    ):
        return False
    return len(text) <= 60 and ("a" in letters or not letters & set("hK"))
