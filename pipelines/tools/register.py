"""Register a data set: ``penchant register --name shop --reviews R.jsonl.gz --items M.jsonl.gz``.

The format is inferred from the first lines of the review file. Every stage then finds the data set by its name.
"""

import argparse
import csv
import glob
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from infra.commands.terminal import command
from infra.settings import load_settings
from pipelines.landing import text_files
from pipelines.landing.csv_rows import HEADER, SEPARATORS, UTF_8, Header, Layout, read_rows, shown
from pipelines.landing.own_columns import EVENT_COLUMNS, ITEM_COLUMNS, REVIEW_COLUMNS, USUAL_NAMES
from pipelines.landing.proposals import SAMPLED, Stated, evidence, proposed
from pipelines.landing.sniff import csv_columns, is_parquet, refuse_array, sniff_format
from schemas.dataset import FORMATS, UNKNOWN_ITEMS, Dataset
from schemas.errors import LONGEST_DETAIL, DataError, bounded
from schemas.spelling import DATES_TOLD, NONE, SCALES_TOLD, Spelling

_LINE_BYTES = 1 << 20
_NO_COLUMNS: Mapping[str, str] = {}
_NOTHING_STATED = Stated()
_LOG = logging.getLogger(__name__)


def register(
    name: str,
    reviews: str,
    items: str | None = None,
    events: str | None = None,
    *,
    datasets_dir: str,
    format: str = "auto",
    review_columns: Mapping[str, str] = _NO_COLUMNS,
    item_columns: Mapping[str, str] = _NO_COLUMNS,
    event_columns: Mapping[str, str] = _NO_COLUMNS,
    event_dates: str | None = None,
    unknown_items: str | None = None,
    layout: Layout = UTF_8,
    stated: Stated = _NOTHING_STATED,
    tell: Callable[[str], object] = _LOG.info,
) -> Dataset:
    """Check the files, infer their format and save the registration.

    Args:
        reviews, items, events: paths of files or of folders of parts, or addresses such as ``s3a://bucket/key``, which
            are not read and need `format`. ``{partition}`` in them stands for the day.
        format: one of `schemas.dataset.FORMATS`, or ``auto``.
        event_columns, event_dates: of the event file, which is CSV or Parquet whatever `format` is; dates are proposed
            from its first rows unless stated.
        unknown_items: ``quarantine`` (default with an item file) or ``keep`` (always without one).
        stated: how ratings and dates are written, for ``columns``; what is not stated is proposed from the first rows.
        tell: receives the proposal line by line, with the rows that it is based on.

    Raises:
        DataError: a file is missing or empty, its format is unknown, columns are missing, or ratings or dates are
            ambiguous.
    """
    spelling = stated.spelling()
    samples = {
        kind: _sample(Path(path))
        for kind, path in (("reviews", reviews), ("items", items), ("events", events))
        if path and "://" not in path
    }
    if format == "auto":
        if "reviews" not in samples:
            raise DataError(f"{reviews} is an address that is not looked into; give --format {' or '.join(FORMATS)}")
        format = sniff_format(samples["reviews"], layout)
    if format == "columns":
        if "reviews" in samples:
            named = "rating" in review_columns
            ours = REVIEW_COLUMNS if spelling.rated else REVIEW_COLUMNS | {"rating": False}
            review_columns = _mapping(samples["reviews"], review_columns, ours, "--columns", layout)
            spelling = _spelling(samples["reviews"], review_columns, stated, named, tell, layout)
        if "items" in samples:
            item_columns = _mapping(samples["items"], item_columns, ITEM_COLUMNS, "--item-columns", layout)
    elif review_columns or item_columns:
        raise DataError(f"--columns and --item-columns go with --format columns, not {format}")
    if format.startswith("amazon"):
        for kind in samples.keys() - {"events"}:
            refuse_array(samples[kind], layout)
    if events is None and (event_columns or event_dates):
        raise DataError("--event-columns and --event-dates go with --events")
    if "events" in samples:
        event_columns = _mapping(samples["events"], event_columns, EVENT_COLUMNS, "--event-columns", layout)
        event_dates = _event_dates(samples["events"], event_columns, event_dates, spelling.time_zone, tell, layout)
    dataset = Dataset(
        name=name,
        format=format,
        reviews=_absolute(reviews),
        items=_absolute(items) if items else None,
        review_columns=dict(review_columns),
        item_columns=dict(item_columns),
        events=_absolute(events) if events else None,
        event_columns=dict(event_columns),
        event_dates=event_dates or Spelling.dates,
        unknown_items=unknown_items or ("quarantine" if items else "keep"),
        encoding=layout.encoding,
        separator=layout.separator,
        escape=layout.escape,
        **asdict(spelling),
    )
    dataset.save(datasets_dir)
    return dataset


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).resolve())


def _sample(path: Path) -> Path:
    """The file itself, or the newest that matches a path with ``{partition}``."""
    if "{partition}" in str(path):
        parts = path.parts
        first = next(index for index, part in enumerate(parts) if "{partition}" in part)
        pattern = glob.escape("/".join(parts[first:])).replace("{partition}", "*")
        found = sorted(Path(*parts[:first]).glob(pattern))
        if not found:
            raise DataError(f"no file is like {path} for any day yet; deliver one, then register")
        path = found[-1]
    if not path.exists():
        raise DataError(f"no such file: {path}")
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    return path


def _spelling(
    path: Path, mapping: dict[str, str], stated: Stated, named: bool, tell: Callable[[str], object], layout: Layout
) -> Spelling:
    """How the file writes ratings and dates; drops the rating from `mapping` where the file has none.

    Args:
        named: whether the user named the column of ratings.
    """
    if stated.scale == NONE:
        if named:
            raise DataError(
                "--scale none says that there are no ratings, and --columns names one; leave one of them out"
            )
        mapping.pop("rating", None)
    rating, date = mapping.get("rating"), mapping["reviewed_at"]
    rows = _first_rows(path, [name for name in (rating, date) if name], layout)
    spelling = proposed(rows, stated, rating, date)
    for line in evidence(rows, spelling, rating, date):
        tell(line)
    return spelling


def _event_dates(
    path: Path, mapping: Mapping[str, str], stated: str | None, zone: str, tell: Callable[[str], object], layout: Layout
) -> str:
    """How the event file writes dates, as `_spelling` for reviews."""
    names = [mapping["action"], mapping["occurred_at"]]
    rows = _first_rows(path, names, layout)
    try:
        spelling = proposed(rows, Stated(scale=NONE, dates=stated, time_zone=zone), None, mapping["occurred_at"])
    except DataError as error:
        raise DataError(str(error).replace("--dates", "--event-dates")) from error
    for line in evidence(rows, spelling, None, mapping["occurred_at"]):
        tell(f"events: {line}")
    if not rows:
        raise DataError(f"{path} has a header and no rows; deliver events, then register")
    found = sorted({row[mapping["action"]].strip()[:40] for row in rows})
    tell(f"events: actions in the first rows: {', '.join(found[:10])}; sequences.actions says which count")
    return spelling.dates


def _first_rows(path: Path, columns: Sequence[str], layout: Layout) -> list[dict[str, str]]:
    """Values of `columns` in the first rows of a file."""
    if is_parquet(path):
        from pipelines.landing.parquet_files import sample

        return sample(path, columns, SAMPLED)
    file = text_files.parts(path)[0]
    found: list[dict[str, str]] = []
    positions: list[int] = []
    for row in islice(
        read_rows(text_files.read_lines(file, layout.encoding, _LINE_BYTES), layout, _LINE_BYTES), SAMPLED
    ):
        if row.reason == HEADER:
            positions = Header.read(row.text, layout).positions(columns, file)
        elif not row.reason:
            found.append({name: row.fields[position] for name, position in zip(columns, positions, strict=True)})
    return found


def _mapping(
    path: Path, given: Mapping[str, str], ours: Mapping[str, bool], option: str, layout: Layout
) -> dict[str, str]:
    """Complete `given` with the columns of the file that have our names, and check that none is missing."""
    if is_parquet(path):
        from pipelines.landing.parquet_files import column_names

        theirs = column_names(path)
    else:
        theirs = csv_columns(path, layout)
    known = shown(theirs)
    usual = {name: usual for name, usual in USUAL_NAMES.items() if name in ours and usual in theirs}
    mapping = usual | {name: name for name in ours if name in theirs} | dict(given)
    for name, column in mapping.items():
        if name not in ours:
            raise DataError(f"{option}: {name!r} is none of our columns: {', '.join(ours)}")
        if column not in theirs:
            raise DataError(f"{path}: there is no column {column!r} for {name}; the file has: {known}")
    missing = [name for name, needed in ours.items() if needed and name not in mapping]
    if missing:
        example = ",".join(f"{name}=THEIRS" for name in missing)
        unrated = ", or --scale none for a feed without ratings" if "rating" in missing else ""
        question = f"{path}: say which column is {' and '.join(missing)}: {option} {example}{unrated}"
        raise DataError(bounded(f"{question}; the file has: {known}", LONGEST_DETAIL))
    return mapping


def parse_columns(text: str) -> dict[str, str]:
    """Parse ``user_id=uid,item_id=sku``; a pair with a comma is quoted."""
    pairs = [pair.partition("=") for pair in next(csv.reader([text], skipinitialspace=True), []) if pair]
    if bad := [name for name, equals, value in pairs if not equals or not value]:
        remedy = "write OURS=THEIRS, separated by commas; a pair with a comma in double quotes"
        raise argparse.ArgumentTypeError(f"{', '.join(bad)[:100]}: {remedy}")
    found = {name.strip(): value.strip() for name, _, value in pairs}
    if len(found) < len(pairs):
        raise argparse.ArgumentTypeError("a column is given twice: name each of ours once")
    return found


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and register."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="lower case letters, digits, - and _")
    parser.add_argument("--reviews", required=True, help="review or rating file; {partition} stands for the day")
    parser.add_argument("--items", help="item file; without one, items have ids only")
    parser.add_argument(
        "--events", help="file of views, clicks or purchases (CSV, Parquet), of which interactions are then made"
    )
    parser.add_argument("--format", default="auto", choices=("auto", *FORMATS))
    for option, ours in (("", REVIEW_COLUMNS), ("item-", ITEM_COLUMNS), ("event-", EVENT_COLUMNS)):
        names = f"OURS=THEIRS,... of {', '.join(ours)}"
        parser.add_argument(f"--{option}columns", type=parse_columns, default={}, help=names)
    parser.add_argument("--event-dates", help="how the event file writes dates, as --dates; else proposed")
    parser.add_argument(
        "--encoding", default="utf-8", help="of text files, e.g. cp1252; a byte order mark overrides it"
    )
    parser.add_argument(
        "--separator", default="", help=f"a character or {', '.join(SEPARATORS)}; else inferred from the header"
    )
    parser.add_argument(
        "--escape", choices=("", "backslash"), default="", help="what escapes quotes that are not doubled"
    )
    parser.add_argument("--scale", help=f"of ratings: {SCALES_TOLD}; else proposed from the first rows")
    parser.add_argument("--dates", help=f"how dates are written: {DATES_TOLD}".replace("%", "%%"))
    parser.add_argument("--time-zone", default=Stated.time_zone, help="of times without one, such as Europe/Berlin")
    parser.add_argument("--decimal", help="',' where 4,5 is four and a half")
    parser.add_argument("--unknown-items", choices=UNKNOWN_ITEMS, help="reviews of items without metadata")
    given = parser.parse_args(argv)
    layout = Layout(
        encoding=given.encoding,
        separator=SEPARATORS.get(given.separator, given.separator),
        escape="\\" if given.escape else "",
    )
    dataset = register(
        given.name,
        given.reviews,
        given.items,
        given.events,
        datasets_dir=load_settings().datasets_dir(),
        format=given.format,
        review_columns=given.columns,
        item_columns=given.item_columns,
        event_columns=given.event_columns,
        event_dates=given.event_dates,
        unknown_items=given.unknown_items,
        layout=layout,
        stated=Stated(scale=given.scale, dates=given.dates, time_zone=given.time_zone, decimal=given.decimal),
        tell=lambda line: sys.stdout.write(f"{line}\n"),
    )
    sys.stdout.write(
        f"registered {dataset.name}: {dataset.format}, {dataset.reviews}, items {dataset.items or 'none'}, "
        f"events {dataset.events or 'none'}\n"
    )


if __name__ == "__main__":
    main()
