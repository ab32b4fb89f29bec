"""Texts of a file as numbers, stars and times, by the spelling of its data set."""

import re
from functools import reduce
from operator import or_

from pyspark.sql import Column
from pyspark.sql import functions as sf

from pipelines.landing.readers.rows import instant, problem
from schemas.spelling import (
    COMMA_NUMBER,
    DAY_FIRST,
    DISLIKES,
    EIGHT_DIGITS,
    EPOCH,
    ISO,
    ISO_TIME,
    LIKE,
    LIKES,
    MONTH_FIRST,
    NO_DATE,
    NO_DAY,
    NO_SECONDS,
    NUMBER,
    UNITS,
    YEAR_FIRST,
    YEAR_LAST,
    ZONED,
    Spelling,
)

_SHOWN = 40
_YEAR_9900 = 2.5e17
"""In microseconds since 1970; beyond the year 9999 Python has no dates."""


def number(text: Column, decimal: str = ".") -> Column:
    """The number that a text consists of; else null."""
    text = sf.trim(text)
    if decimal == ",":
        pointed = sf.translate(sf.regexp_replace(text, r"\.", ""), ",", ".")
        return sf.when(text.rlike(COMMA_NUMBER), pointed.try_cast("double"))
    return sf.when(text.rlike(NUMBER), text.try_cast("double"))


def stars(text: Column, spelling: Spelling) -> Column:
    """Stars from a rating of the file; null where it is empty, unreadable or outside the scale."""
    given = sf.trim(text)
    if spelling.scale == LIKE:
        word = sf.lower(given)
        return sf.when(word.isin(*LIKES), 5.0).when(word.isin(*DISLIKES), 1.0)
    value = number(given, spelling.decimal)
    bounds = spelling.bounds()
    if not spelling.rated or bounds is None:
        return value if spelling.rated else sf.lit(None).cast("double")
    low, high = bounds
    return sf.when(value.between(low, high), 1.0 + (value - low) * (4.0 / (high - low)))


def wrong_rating(text: Column, rating: Column, spelling: Spelling, name: str) -> tuple[Column, Column]:
    """The case of a rating that is not empty and gave no stars.

    Args:
        name: name of the column in the file.
    """
    given, shown = sf.trim(text), sf.left(sf.trim(text), sf.lit(_SHOWN))
    wrong = (given != "") & rating.isNull() if spelling.rated else sf.lit(False)
    if spelling.scale == LIKE:
        return wrong, problem("wrong_type", sf.concat(sf.lit(f"{name} is neither like nor dislike: "), shown))
    comma = given.rlike(COMMA_NUMBER) & sf.lit(spelling.decimal == ".")
    advice = sf.when(comma, "; where 4,5 is four and a half, register with --decimal ,").otherwise("")
    no_number = problem("wrong_type", sf.concat(sf.lit(f"{name} is no number: "), shown, advice))
    if spelling.bounds() is None:
        return wrong, no_number
    outside = sf.concat(sf.lit(f"{name} is "), shown, sf.lit(f", outside the scale {spelling.scale} of the data set"))
    unread = number(given, spelling.decimal).isNull()
    return wrong, sf.when(unread, no_number).otherwise(problem("bad_rating", outside))


def moment(text: Column, spelling: Spelling) -> Column:
    """A time from a text; null where it is empty or ambiguous.

    Dates with the year first and times with a zone are unambiguous. Numbers count from 1970, in the stated unit or in
    the one that follows from their size.
    """
    given = sf.trim(text)
    ordered = sf.regexp_replace(given, YEAR_FIRST, "$1-$2-$3$4")
    if spelling.dates in (DAY_FIRST, MONTH_FIRST):
        order = "$3-$2-$1$4" if spelling.dates == DAY_FIRST else "$3-$1-$2$4"
        ordered = sf.regexp_replace(ordered, YEAR_LAST, order)
    ordered = sf.regexp_replace(ordered, NO_SECONDS, "$1:00$2")  # Spark wants seconds before a zone
    named = ordered.rlike(ZONED) | ~ordered.contains(":")
    at = sf.when(ordered.rlike(ISO_TIME), _in_zone(ordered.try_cast("timestamp"), named, spelling.time_zone))
    if spelling.dates in UNITS:
        micros = sf.round(given.try_cast("double") * UNITS[spelling.dates])
        counted = sf.when(sf.abs(micros) < _YEAR_9900, sf.timestamp_micros(micros.cast("bigint")))
        return sf.coalesce(sf.when(given.rlike(NUMBER), counted), at)
    if spelling.dates in (ISO, DAY_FIRST, MONTH_FIRST):
        count = sf.when(given.rlike(NUMBER), given.try_cast("double"))
        spans = [(EPOCH[0] * unit, EPOCH[1] * unit) for unit in (1, 10**3, 10**6, 10**9)]
        certain = reduce(or_, ((count >= float(low)) & (count < float(high)) for low, high in spans))
        return sf.coalesce(at, sf.when(certain, instant(count)))
    return sf.coalesce(_by_pattern(given, spelling), at)


def wrong_date(text: Column, at: Column, spelling: Spelling, option: str = "--dates") -> tuple[Column, Column]:
    """The case of a date that is not empty and gave no time; its detail says how to mend it.

    Args:
        option: of the command line, that says how dates are written.
    """
    given = sf.trim(text)
    hint = sf.when(given.rlike(NO_DATE), " is a time of day without a day")
    hint = hint.when(given.rlike(NO_DAY), " is no day; give year, month and day")
    if spelling.dates == ISO:
        for pattern, question, first in (
            (YEAR_LAST, ": day or month first?", "dmy"),
            (EIGHT_DIGITS, " is a day or seconds?", "yyyyMMdd"),
            (NUMBER, " is digits of a date or a count?", "yyyyMMddHHmm"),
        ):
            second = "mdy" if first == "dmy" else "seconds"
            advice = f"{question} Register with {option} {first} or {option} {second}"
            hint = hint.when(given.rlike(pattern), advice)
        hint = hint.otherwise(
            f" is not read as a date; register with {option} and its pattern, such as 'dd.MM.yyyy HH:mm'"
        )
    else:
        hint = hint.otherwise(f" is no date as the data set was registered, with {option} {spelling.dates}")
    shown = sf.left(given, sf.lit(_SHOWN))
    return at.isNull() & (given != ""), problem("bad_date", sf.concat(shown, hint))


def _in_zone(at: Column, named: Column, zone: str) -> Column:
    """A time that was read as UTC, moved to `zone` unless its text names a zone or is only a day."""
    return at if zone == "UTC" else sf.when(named, at).otherwise(sf.to_utc_timestamp(at, sf.lit(zone)))


def _by_pattern(text: Column, spelling: Spelling) -> Column:
    letters = set(re.sub(r"'[^']*'", "", spelling.dates))
    named = bool(letters & set("XxZzVO")) or not letters & set("HhKk")
    return _in_zone(sf.try_to_timestamp(text, sf.lit(spelling.dates)), sf.lit(named), spelling.time_zone)
