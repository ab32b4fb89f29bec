"""Register a data set: ``python -m pipelines.landing.register --name shop --reviews R.jsonl.gz --items M.jsonl.gz``.

The format is told from the first lines of the review file. Afterwards every stage finds the data set by its name.
"""

import argparse
import glob
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.settings import load_settings
from pipelines.landing.csv_rows import SEPARATORS, Layout, shown
from pipelines.landing.own_columns import ITEM_COLUMNS, REVIEW_COLUMNS, USUAL_NAMES
from pipelines.landing.sniff import csv_columns, is_parquet, refuse_array, sniff_format
from schemas.dataset import FORMATS, UNKNOWN_ITEMS, Dataset
from schemas.errors import DataError


def register(
    name: str,
    reviews: str,
    items: str | None = None,
    *,
    datasets_dir: Path,
    format: str = "auto",
    review_columns: Mapping[str, str] | None = None,
    item_columns: Mapping[str, str] | None = None,
    unknown_items: str | None = None,
    layout: Layout | None = None,
) -> Dataset:
    """Check the files, tell their format and save the registration.

    Args:
        reviews, items: paths of files or of folders of parts, or addresses such as ``s3a://bucket/key``, which are
            not looked into and need `format`. ``{partition}`` in them stands for the day.
        format: one of `schemas.dataset.FORMATS`, or ``auto``.
        unknown_items: ``quarantine`` (default with an item file) or ``keep`` (always without one).
        layout: how text files are written, where that is not UTF-8 with the separator that the header tells.

    Raises:
        DataError: a file is missing or empty, the format cannot be told, or columns are missing.
    """
    layout = layout or Layout()
    samples = {
        kind: _sample(Path(path))
        for kind, path in (("reviews", reviews), ("items", items))
        if path and "://" not in path
    }
    if format == "auto":
        if "reviews" not in samples:
            raise DataError(f"{reviews} is an address that is not looked into; give --format {' or '.join(FORMATS)}")
        format = sniff_format(samples["reviews"], layout)
    columns = dict(review_columns or {}), dict(item_columns or {})
    if format == "columns":
        if "reviews" in samples:
            columns = _mapping(samples["reviews"], columns[0], REVIEW_COLUMNS, "--columns", layout), columns[1]
        if "items" in samples:
            columns = columns[0], _mapping(samples["items"], columns[1], ITEM_COLUMNS, "--item-columns", layout)
    elif any(columns):
        raise DataError(f"--columns and --item-columns go with --format columns, not {format}")
    if format.startswith("amazon"):
        for sample in samples.values():
            refuse_array(sample, layout)
    dataset = Dataset(
        name=name,
        format=format,
        reviews=_absolute(reviews),
        items=_absolute(items) if items else None,
        review_columns=columns[0],
        item_columns=columns[1],
        unknown_items=unknown_items or ("quarantine" if items else "keep"),
        encoding=layout.encoding,
        separator=layout.separator,
        escape=layout.escape,
    )
    dataset.save(datasets_dir)
    return dataset


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).resolve())


def _sample(path: Path) -> Path:
    """The file itself, or for a path with ``{partition}`` its newest instance."""
    if "{partition}" in str(path):
        parts = path.parts
        first = next(index for index, part in enumerate(parts) if "{partition}" in part)
        pattern = glob.escape("/".join(parts[first:])).replace("{partition}", "*")
        found = sorted(Path(*parts[:first]).glob(pattern)) if first else sorted(Path().glob(pattern))
        if not found:
            raise DataError(f"no file is like {path} for any day yet; deliver one, then register")
        path = found[-1]
    if not path.exists():
        raise DataError(f"no such file: {path}")
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    return path


def _mapping(
    path: Path, given: Mapping[str, str], ours: Mapping[str, bool], option: str, layout: Layout
) -> dict[str, str]:
    """Complete `given` with columns of the file that bear our names; check that every needed one is there."""
    if is_parquet(path):
        import pyarrow.dataset as ds

        theirs = ds.dataset(path, format="parquet").schema.names
    else:
        theirs = csv_columns(path, layout)
    known = shown(theirs)
    usual = {name: theirs_too for name, theirs_too in USUAL_NAMES.items() if name in ours and theirs_too in theirs}
    mapping = usual | {name: name for name in ours if name in theirs} | dict(given)
    for name, column in mapping.items():
        if name not in ours:
            raise DataError(f"{option}: {name!r} is none of our columns: {', '.join(ours)}")
        if column not in theirs:
            raise DataError(f"{path}: there is no column {column!r} for {name}; the file has: {known}")
    missing = [name for name, needed in ours.items() if needed and name not in mapping]
    if missing:
        example = ",".join(f"{name}=THEIRS" for name in missing)
        raise DataError(
            f"{path}: say which column is {' and '.join(missing)}: {option} {example}; the file has: {known}"
        )
    return mapping


def parse_columns(text: str) -> dict[str, str]:
    """``user_id=uid,item_id=sku`` as a mapping from our names to theirs."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if bad := [name for name, equals, value in pairs if not equals or not value]:
        raise argparse.ArgumentTypeError(f"{', '.join(bad)}: write OURS=THEIRS, separated by commas")
    return {name.strip(): value.strip() for name, _, value in pairs}


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and register."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="lower case letters, digits, - and _")
    parser.add_argument("--reviews", required=True, help="review or rating file; {partition} stands for the day")
    parser.add_argument("--items", help="item file; without one, items have ids only")
    parser.add_argument("--format", default="auto", choices=("auto", *FORMATS))
    parser.add_argument(
        "--columns", type=parse_columns, default={}, help=f"OURS=THEIRS,... of {', '.join(REVIEW_COLUMNS)}"
    )
    parser.add_argument(
        "--item-columns", type=parse_columns, default={}, help=f"OURS=THEIRS,... of {', '.join(ITEM_COLUMNS)}"
    )
    parser.add_argument(
        "--encoding", default="utf-8", help="of text files, e.g. cp1252; a byte order mark wins over it"
    )
    parser.add_argument(
        "--separator", default="", help=f"a character or {', '.join(SEPARATORS)}; else the header tells it"
    )
    parser.add_argument(
        "--escape", choices=("", "backslash"), default="", help="what escapes quotes that are not doubled"
    )
    parser.add_argument("--unknown-items", choices=UNKNOWN_ITEMS, help="reviews of items without metadata")
    given = parser.parse_args(argv)
    try:
        layout = Layout(
            encoding=given.encoding,
            separator=SEPARATORS.get(given.separator, given.separator),
            escape="\\" if given.escape else "",
        )
        dataset = register(
            given.name,
            given.reviews,
            given.items,
            datasets_dir=load_settings().datasets_dir(),
            format=given.format,
            review_columns=given.columns,
            item_columns=given.item_columns,
            unknown_items=given.unknown_items,
            layout=layout,
        )
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.write(
        f"registered {dataset.name}: {dataset.format}, {dataset.reviews}, items {dataset.items or 'none'}\n"
    )


if __name__ == "__main__":
    main()
