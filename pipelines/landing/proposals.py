"""Infer from the first rows of a file how it writes ratings and dates, or ask."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from schemas.errors import DataError
from schemas.spelling import (
    COMMA_NUMBER,
    DATES_TOLD,
    DAY_FIRST,
    DISLIKES,
    ISO,
    ISO_TIME,
    LIKE,
    LIKES,
    MONTH_FIRST,
    NUMBER,
    SCALES_TOLD,
    STARS,
    UNITS,
    YEAR_FIRST,
    YEAR_LAST,
    Spelling,
    counted,
)

SAMPLED = 1000
"""Rows that a proposal is based on."""
_SHOWN = 3
_ODD = 0.02
"""Share of rows outside a scale up to which the scale is still proposed; those rows are refused."""
_HIGHEST = 0.9
"""A scale is proposed only where some ratings reach this share of its maximum; else 1-7 would pass for 1-10."""
_LOW_STARS = 4
"""Without any rating this high, stars may be counts or belong to another scale."""
_FEW = 10
"""Up to this many rows cannot tell a constant from a rating."""


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What the user stated at registration; None is to be proposed."""

    scale: str | None = None
    dates: str | None = None
    time_zone: str = Spelling.time_zone
    decimal: str | None = None

    def spelling(self) -> Spelling:
        """The stated values, with defaults for the rest."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return Spelling(**given)


def proposed(rows: Sequence[Mapping[str, str]], stated: Stated, ratings: str | None, dates: str) -> Spelling:
    """The spelling of a file, from its first `rows` and what was `stated`.

    Args:
        ratings, dates: columns of ratings and dates in `rows`; `ratings` is None where there are none.

    Raises:
        DataError: the rows are ambiguous; the message names the option that decides.
    """
    given = [text for row in rows if ratings and (text := row.get(ratings, "").strip()).lower() not in ("", "nan")]
    decimal = stated.decimal or _decimal(given)
    return Spelling(
        scale=stated.scale or _scale(given, decimal, ratings or ""),
        dates=stated.dates or _dates([text for row in rows if (text := row.get(dates, "").strip())], dates),
        time_zone=stated.time_zone,
        decimal=decimal,
    )


def evidence(rows: Sequence[Mapping[str, str]], spelling: Spelling, ratings: str | None, dates: str) -> list[str]:
    """Lines that show a person how the first rows are read under `spelling`."""
    lines = [
        f"scale {spelling.scale}, dates {spelling.dates}, time zone {spelling.time_zone}, decimal {spelling.decimal}"
    ]
    for row in rows[:_SHOWN]:
        date, rating = row.get(dates, ""), row.get(ratings or "", "")
        stars = f"{ratings} {rating[:20]!r} is {_stars(rating.strip(), spelling)}, " if ratings else ""
        lines.append(f"  {stars}{dates} {date[:40]!r}{_day(date.strip(), spelling)}")
    return lines


def _day(text: str, spelling: Spelling) -> str:
    """The day of a number, or of a date whose order of day and month was proposed or stated; else empty."""
    if re.match(NUMBER, text):
        at = float(text) * UNITS[spelling.dates] / 1e6 if spelling.dates in UNITS else counted(float(text))
        first = datetime(1970, 1, 1)
        near = at is not None and abs(at) < 2e11  # Python has no year 10,000
        return f" is {first + timedelta(seconds=at):%Y-%m-%d}" if at is not None and near else ""
    found = re.match(YEAR_LAST, text)
    if found is None or spelling.dates not in (DAY_FIRST, MONTH_FIRST):
        return ""
    day, month = found.group(1, 2) if spelling.dates == DAY_FIRST else found.group(2, 1)
    return f" is {found[3]}-{month:0>2}-{day:0>2}"


def _stars(text: str, spelling: Spelling) -> str:
    """A rating in stars, for a person."""
    if not spelling.rated:
        return "not read"
    if spelling.scale == LIKE:
        return "5 stars" if text.lower() in LIKES else "1 star" if text.lower() in DISLIKES else "refused"
    value = _number(text, spelling.decimal)
    low, high = spelling.bounds() or (0.5, 5.0)
    if value is None or not low <= value <= high:
        return "refused"
    return f"{value if spelling.scale == STARS else 1 + 4 * (value - low) / (high - low):.3g} stars"


def _number(text: str, decimal: str) -> float | None:
    if decimal == ",":
        return float(text.replace(".", "").replace(",", ".")) if re.match(COMMA_NUMBER, text) else None
    return float(text) if re.match(NUMBER, text) else None


def _decimal(given: Sequence[str]) -> str:
    """The decimal mark: a comma where ratings have commas and no point."""
    commas = sum("," in text and re.match(COMMA_NUMBER, text) is not None for text in given)
    return "," if commas and not any("." in text for text in given) else "."


def _scale(given: Sequence[str], decimal: str, column: str) -> str:
    if not given:
        return STARS
    words = {text.lower() for text in given}
    numbers = [number for text in given if (number := _number(text, decimal)) is not None]
    if len(numbers) < len(given) / 2:
        if words <= {*LIKES, *DISLIKES}:
            return LIKE
        raise DataError(f"column {column!r} has {_some(given)}, no ratings; give --scale, one of: {SCALES_TOLD}")
    values, low, high = set(numbers), min(numbers), max(numbers)
    if len(numbers) > _FEW and len(values) == 1 and values <= {0, 1}:
        raise DataError(
            f"column {column!r} is {given[0][:20]} in all of {len(given)} rows: give --scale none where it counts "
            "clicks or purchases, else --scale stars, like or LOW-HIGH"
        )
    if values in ({0, 1}, {-1, 1}):
        return LIKE
    unclear = DataError(f"column {column!r} has ratings from {low:g} to {high:g}; give --scale, one of: {SCALES_TOLD}")
    if sum(not 0.5 <= number <= 5 for number in numbers) <= _ODD * len(numbers):
        if len(numbers) > _FEW and not any(_LOW_STARS <= number <= 5 for number in numbers):
            raise unclear
        return STARS
    if low < 0 or high > 100:
        raise unclear
    greatest = next(top for top in (5, 10, 100) if high <= top)
    zeros = numbers.count(0)
    if zeros > _ODD * len(numbers) and greatest < 100:
        raise DataError(
            f"column {column!r} is 0 in {zeros} of {len(numbers)} rows: give --scale 0-{greatest} where that is the "
            f"least rating, --scale {STARS if greatest == 5 else '1-10'} where it means none (such rows are refused)"
        )
    least = 0 if greatest == 100 else 1
    if greatest == 5 or high < _HIGHEST * greatest or sum(number < least for number in numbers) > _ODD * len(numbers):
        raise unclear
    return f"{least}-{greatest}"


def _dates(given: Sequence[str], column: str) -> str:
    certain = [text for text in given if _is_certain(text)]
    year_last = [found for text in given if (found := re.match(YEAR_LAST, text))]
    if len(certain) * 2 >= len(given):
        return ISO
    if len(year_last) * 2 >= len(given):
        first, second = (max(int(found[group]) for found in year_last) for group in (1, 2))
        if first > 12 >= second:
            return DAY_FIRST
        if second > 12 >= first:
            return MONTH_FIRST
        why = "may have day or month first" if first <= 12 else "have the day first here and the month first there"
        raise DataError(f"dates of {column!r} {why}, such as {_some(given)}: give --dates dmy or --dates mdy")
    raise DataError(f"column {column!r} has {_some(given)}; say with --dates how they are written: {DATES_TOLD}")


def _is_certain(text: str) -> bool:
    number = re.match(NUMBER, text) and counted(float(text)) is not None
    return bool(number or re.match(ISO_TIME, re.sub(YEAR_FIRST, r"\1-\2-\3\4", text)))


def _some(given: Sequence[str]) -> str:
    return ", ".join(repr(text[:20]) for text in list(dict.fromkeys(given))[:_SHOWN])
