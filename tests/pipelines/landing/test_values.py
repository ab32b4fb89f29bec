"""Ratings and dates: what is stated is read; otherwise the refusal names the option to state it."""

import datetime as dt

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from pipelines.landing.readers import values
from pipelines.landing.readers.rows import first_problem
from schemas.errors import DataError
from schemas.spelling import Spelling


def _read(spark: SparkSession, spelling: Spelling, texts: list[str], what: str) -> dict[str, object]:
    """Each text with what was read from it, or with what was said of it."""
    read, wrong = (values.moment, values.wrong_date) if what == "date" else (values.stars, values.wrong_rating)
    name = ("stars",) if what == "rating" else ()
    frame = spark.createDataFrame([(text,) for text in texts], "given string")
    frame = frame.withColumn("read", read(sf.col("given"), spelling))
    found = first_problem(wrong(sf.col("given"), sf.col("read"), spelling, *name))
    rows = frame.withColumn("problem", found).collect()
    return {row.given: row.problem.detail if row.problem else row.read for row in rows}


DAY, TEN = dt.datetime(2024, 1, 31), dt.datetime(2024, 1, 31, 10)
DATES = {
    "2024-01-31": DAY,
    "2024-01-31 10:00": TEN,
    "2024-01-31T10:00:00Z": TEN,
    "2024/01/31": DAY,
    "2024-1-31": DAY,
    "2024-01-31T10:00:00+05:30": dt.datetime(2024, 1, 31, 4, 30),
    "2024-01-31T10:00:00.5+0530": dt.datetime(2024, 1, 31, 4, 30, 0, 500_000),
    "2024-01-31 10:00:00 Europe/Berlin": dt.datetime(2024, 1, 31, 9),
    "1706695200": TEN,
    "1706695200000": TEN,
    "1706695200000000": TEN,
    "1706695200000000000": TEN,
    "1.7066952E9": TEN,
    "1706695200.25": TEN.replace(microsecond=250_000),
    "": None,
    "0,5": "not read as a date; register with --dates and its pattern",
    "now": "not read as a date",
    "2024-02-30": "not read as a date",
    "2024-01-31 10:00:00 PST": "not read as a date",
    "Jan 31, 2024": "not read as a date",
    "1e400": "digits of a date or a count?",
    "31/01/2024": "day or month first? Register with --dates dmy or --dates mdy",
    "05-04-2024": "--dates dmy or",
    "31.01.2024": "--dates dmy or",
    "20240131": "a day or seconds? Register with --dates yyyyMMdd or --dates seconds",
    "2024013110": "digits of a date or a count? Register with --dates",
    "20240131101500": "digits of a date or a count?",
    "45321": "digits of a date or a count?",
    "T10:00": "a time of day without a day",
    "10:00": "a time of day without a day",
    "2024": "is no day; give year, month and day",
    "2024-01": "is no day",
}


def test_what_is_certain_is_read_and_what_is_not_names_the_setting(spark: SparkSession):
    read = _read(spark, Spelling(), list(DATES), "date")
    for text, expected in DATES.items():
        if isinstance(expected, str):
            assert str(read[text]).startswith(text), text
            assert expected in str(read[text]), text
        else:
            assert read[text] == expected, text


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"dates": "dmy"},
            {
                "05/04/2024": dt.datetime(2024, 4, 5),
                "31.01.2024 10:00": TEN,
                "01/31/2024": "no date as",
                "2024-01-31": DAY,
            },
        ),
        ({"dates": "mdy"}, {"05/04/2024": dt.datetime(2024, 5, 4), "31.01.2024": "--dates mdy"}),
        ({"dates": "yyyyMMdd"}, {"20240131": DAY, "1706695200": "--dates yyyyMMdd"}),
        ({"dates": "MMM d, yyyy h:mm a"}, {"Jan 31, 2024 10:00 AM": TEN}),
        ({"dates": "seconds"}, {"20240131": dt.datetime(1970, 8, 23, 6, 15, 31), "2024-01-31": DAY}),
        ({"dates": "nanoseconds"}, {"1706695200000000000": TEN}),
        (
            {"time_zone": "Europe/Berlin"},
            {"2024-01-31 11:00": TEN, "2024-01-31T10:00Z": TEN, "2024-01-31": DAY, "1706695200": TEN},
        ),
        (
            {"dates": "dd.MM.yyyy[ HH:mm]", "time_zone": "Europe/Berlin"},
            {"31.01.2024 11:00": TEN, "2024-01-31T10:00Z": TEN},
        ),
    ],
)
def test_a_setting_says_how_dates_are_written(spark: SparkSession, settings, expected):
    read = _read(spark, Spelling(**settings), list(expected), "date")
    assert all(read[t] == e or (isinstance(e, str) and e in str(read[t])) for t, e in expected.items()), read


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {},
            {
                "4.75": 4.75,
                "5.0": 5.0,
                "": None,
                "6": 6.0,
                "4,5": "stars is no number: 4,5; where 4,5 is four and a half, register with --decimal ,",
                "NaN": "no number",
                "5 stars": "no number: 5 stars",
                "★★★★": "no number",
                "0x5": "no number",
                "5f": "no number",
                "true": "no number",
            },
        ),
        ({"decimal": ","}, {"4,5": 4.5, "4": 4.0, "1.234,5": 1234.5, "4.5": "no number"}),
        (
            {"scale": "1-10"},
            {
                "1": 1.0,
                "10": 5.0,
                "5.5": 3.0,
                "0": "stars is 0, outside the scale 1-10",
                "x": "no number",
                "11": "outside",
            },
        ),
        ({"scale": "-10-10"}, {"-10": 1.0, "0": 3.0, "10.0": 5.0}),
        ({"scale": "0-100"}, {"0": 1.0, "75": 4.0}),
        (
            {"scale": "like"},
            {
                "true": 5.0,
                "False": 1.0,
                "1": 5.0,
                "0.0": 1.0,
                "Not Recommended": 1.0,
                "3": "neither like nor dislike: 3",
            },
        ),
        ({"scale": "none"}, {"3": None, "x": None}),
    ],
)
def test_a_scale_says_what_ratings_mean(spark: SparkSession, settings, expected):
    read = _read(spark, Spelling(**settings), list(expected), "rating")
    assert all(read[t] == e or (isinstance(e, str) and e in str(read[t])) for t, e in expected.items()), read


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": "10-1"}, "scale '10-1' is none of: stars"),
        ({"scale": "ten"}, "is none of"),
        ({"dates": "DD/MM"}, "dates 'DD/MM' is none of"),
        ({"dates": "yyyy-MM-dd hh:mm"}, "is none of"),
        ({"dates": "dd.MM.yyyy'"}, "is none of"),
        ({"time_zone": "CET/Nowhere"}, "is not a time zone"),
        ({"time_zone": "../x"}, "is not a time zone"),
        ({"decimal": ";"}, "neither"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(settings, message):
    with pytest.raises(DataError, match=message) as caught:
        Spelling(**settings)
    assert len(str(caught.value)) <= 300
