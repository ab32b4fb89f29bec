"""What registration infers from the first rows, and when it asks."""

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.landing.proposals import Stated, evidence, proposed
from pipelines.tools.register import main, register
from schemas.dataset import Dataset
from schemas.errors import DataError
from schemas.recipes import RECIPES, Need, lacking, require
from schemas.spelling import Spelling


def _proposed(ratings, on=("2024-01-31",), **stated):
    rows = [{"stars": str(rating), "on": on[number % len(on)]} for number, rating in enumerate(ratings)]
    return proposed(rows, Stated(**stated), "stars", "on")


@pytest.mark.parametrize(
    ("ratings", "scale"),
    [
        ((1, 3, 5), "stars"),
        ((0.5, 4.5), "stars"),
        ((4,), "stars"),
        ([1, 4] * 20, "stars"),
        ((1, 9, 3), "1-10"),
        (range(1, 11), "1-10"),
        ((40, 85, 100, 0), "0-100"),
        (("True", "False", "true"), "like"),
        ((1, 0, 0, 1), "like"),
        ((1, -1), "like"),
        (("like", "dislike"), "like"),
        ((*[3, 4, 5] * 40, 0, 50), "stars"),
        ((), "stars"),
    ],
)
def test_a_scale_is_proposed(ratings, scale):
    assert _proposed(ratings).scale == scale


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ([1] * 20, "is 1 in all of 20 rows: give --scale none where it counts clicks"),
        ((0, 0, 7, 10), "is 0 in 2 of 4 rows: give --scale 0-10 .*, --scale 1-10 where it means none"),
        ((0, 4, 5), "give --scale 0-5 .*, --scale stars where it means none"),
        (range(1, 8), "from 1 to 7; give --scale"),
        (range(1, 9), "from 1 to 8; give --scale"),
        (range(1, 7), "from 1 to 6; give --scale"),
        (range(21), "from 0 to 20; give --scale"),
        ((0.1, 0.2, 0.5, 0.9, 1.0), "from 0.1 to 1; give --scale"),
        ((0.1, 0.2, 4, 5), "from 0.1 to 5; give --scale"),
        ((0.2, 0.4, 9, 10), "from 0.2 to 10; give --scale"),
        ([1, 1, 1, 2, 3] * 6, "from 1 to 3; give --scale"),
        ([*[1, 2, 3] * 40, 50], "from 1 to 50; give --scale"),
        ([0.5, 1.0] * 6, "from 0.5 to 1; give --scale"),
        ((-3, 250), "has ratings from -3 to 250; give --scale"),
        (("good", "bad"), "has 'good', 'bad', no ratings; give --scale"),
    ],
)
def test_a_scale_that_could_be_another_is_asked_for(ratings, message):
    with pytest.raises(DataError, match=message) as caught:
        _proposed(ratings)
    assert len(str(caught.value)) <= 300
    assert _proposed(ratings, scale="none").scale == "none"


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (("2024-01-31", "1706695200", "2024/01/31 10:00"), "iso"),
        (("31/01/2024", "05/01/2024"), "dmy"),
        (("1-31-2024", "2-3-2024"), "mdy"),
        (
            ("05/04/2024", "06/04/2024"),
            "may have day or month first, such as '05/04/2024', '06/04/2024': give --dates dmy",
        ),
        (("31/01/2024", "01/31/2024"), "day first here and the month first there"),
        (("T10:00", "11:00"), "has 'T10:00', '11:00'; say with --dates how they are written"),
        (("20240131",), "say with --dates how"),
        (("2024",), "say with --dates how"),
        (("1706695200000000000", "1706695200.5"), "iso"),
        *(
            ((digits,), "say with --dates how")
            for digits in (
                "2024013110",
                "2401311015",
                "45321",
                "240131",
                "202401",
                "2024031",
                "1.5",
                "-1706695200",
                "202401311015",
                "240131101500",
                "20240131101500",
                "20240131101500000",
                "1" + "0" * 300,
            )
        ),
    ],
)
def test_an_order_of_day_and_month_is_told_or_asked_for(dates, expected):
    if len(expected) == 3:
        assert _proposed([4] * 6, dates).dates == expected
        return
    with pytest.raises(DataError, match=expected) as caught:
        _proposed([4] * 6, dates)
    assert len(str(caught.value)) <= 300
    assert _proposed([4] * 6, dates, dates="mdy").dates == "mdy"


@pytest.mark.parametrize("scale", ["1-" + "9" * 400, "1-\u0665", "5-1", "1-inf", "ten"])
def test_a_scale_that_is_no_scale_is_refused(scale: str):
    with pytest.raises(DataError, match="is none of: stars"):
        Spelling(scale=scale)


def test_the_day_of_a_number_is_shown():
    for text, dates in (("1706695200", "iso"), ("1706695200000", "iso"), ("1706695200000", "milliseconds")):
        told = evidence([{"on": text}], Spelling(dates=dates), None, "on")
        assert told[1].endswith(" is 2024-01-31"), told
    for text in ("2024013110", "1e300", ""):
        assert " is " not in evidence([{"on": text}], Spelling(), None, "on")[1]
    assert evidence([{"on": "9e18"}], Spelling(dates="seconds"), None, "on")[1].endswith("'9e18'")


def test_registration_shows_the_proposal_and_three_rows(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path / "home"))
    path = tmp_path / "r.csv"
    path.write_text(
        "user_id,item_id,rating,reviewed_at\n" + "".join(f"u,i,{n},{n + 9}.01.2024\n" for n in range(1, 11))
    )
    main(["--name", "ten", "--reviews", str(path), "--time-zone", "Europe/Berlin"])
    told = capsys.readouterr().out
    assert "scale 1-10, dates dmy, time zone Europe/Berlin, decimal ." in told
    assert "rating '1' is 1 stars, reviewed_at '10.01.2024' is 2024-01-10" in told
    assert told.count("stars, reviewed_at") == 3
    dataset = Dataset.load(str(tmp_path / "home" / "datasets"), "ten")
    assert (dataset.scale, dataset.dates, dataset.time_zone, dataset.decimal) == ("1-10", "dmy", "Europe/Berlin", ".")
    old = json.loads((tmp_path / "home" / "datasets" / "ten.json").read_text())
    plain = Dataset(**{name: value for name, value in old.items() if name not in ("scale", "dates", "time_zone")})
    assert (plain.scale, plain.dates, plain.time_zone) == ("stars", "iso", "UTC")
    with pytest.raises(SystemExit):
        main(["--name", "ten", "--reviews", str(path), "--scale", "ten"])
    assert "scale 'ten' is none of: stars" in capsys.readouterr().err


def test_a_feed_without_ratings_is_registered_and_what_needs_them_is_refused(tmp_path: Path, monkeypatch):
    path = tmp_path / "clicks.parquet"
    at = pa.array([dt.datetime(2024, 1, 31)] * 2, pa.timestamp("ns"))
    pq.write_table(pa.table({"user_id": ["u", "v"], "item_id": [1.0, None], "reviewed_at": at, "rating": [1, 1]}), path)
    dataset = register("clicks", str(path), datasets_dir=str(tmp_path), stated=Stated(scale="none"))
    assert (dataset.scale, "rating" in dataset.review_columns) == ("none", False)
    with pytest.raises(DataError, match="--scale none says that there are no ratings, and --columns names one"):
        register(
            "clicks",
            str(path),
            datasets_dir=str(tmp_path),
            stated=Stated(scale="none"),
            review_columns={"rating": "rating"},
        )
    pq.write_table(pq.read_table(path).drop_columns(["rating"]), path)
    with pytest.raises(DataError, match=r"which column is rating: .*or --scale none for a feed without ratings"):
        register("clicks", str(path), datasets_dir=str(tmp_path))

    rated = replace(RECIPES["sasrec"], needs=frozenset({Need.RATINGS}))
    monkeypatch.setitem(RECIPES, "rated", rated)
    require("sasrec", {}, lacking(dataset))
    require("rated", {}, lacking(None))
    with pytest.raises(
        DataError, match=r"recipe rated needs ratings, but data set clicks is registered without .*choose one"
    ):
        require("rated", {}, lacking(dataset))


def test_releases_say_themselves_how_they_are_written(tmp_path: Path):
    path = tmp_path / "ratings.csv"
    path.write_text("userId,movieId,rating,timestamp\n1,2,3.5,964982703\n")
    with pytest.raises(DataError, match="need --format columns; the format movielens fixes"):
        register("ml", str(path), datasets_dir=str(tmp_path), stated=Stated(scale="1-10"))
