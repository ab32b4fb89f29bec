"""Read the field's benchmark files: ``<name>.txt[.gz]`` with a user and then item ids in order on each line, and
``<name>_items.jsonl[.gz]`` with derived texts. The published files have no times; ``<name>_times.txt[.gz]`` may add
them: the same users on the same lines, each with one time per item in seconds since 1970.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.data.catalogue import Catalogue, IntArray
from ray_jobs.data.histories import Histories
from schemas.errors import DataError

_SHORTEST = 3


def read_benchmark(folder: Path, name: str) -> tuple[Catalogue, Histories]:
    """The data set `name` of `folder`, split leave-one-out: the last item for test, the one before for validation.

    Titles and texts are from the items file; without it an item's title is its id.

    Raises:
        DataError: a file is missing or a line cannot be read; the message names file, line and remedy.
    """
    users: list[str] = []
    rows: list[list[str]] = []
    path = _found(folder, f"{name}.txt")
    for number, line in _lines(path):
        user, *items = line.split()
        if len(items) < _SHORTEST:
            raise DataError(
                f"{path}, line {number}: user {user!r} has {len(items)} items, but a history needs {_SHORTEST} to be "
                "split into training, validation and test"
            )
        users.append(user)
        rows.append(items)
    if len(set(users)) < len(users):
        raise DataError(f"{path}: a user is on two lines; join the histories first")
    item_ids = tuple(sorted({item for row in rows for item in row}, key=lambda item: (len(item), item)))
    texts = _texts(folder, name, item_ids)
    catalogue = Catalogue(
        item_ids=item_ids,
        titles=tuple(title for title, _ in texts),
        texts=tuple(text for _, text in texts),
    )
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    histories = Histories(
        user_ids=tuple(users),
        items=tuple(np.array([catalogue.index[item] for item in row], dtype=np.int64) for row in rows),
        valid_position=lengths - 2,
        test_position=lengths - 1,
        preferences=({},) * len(users),
        times=_times(folder, name, users, lengths),
    )
    return catalogue, histories


def _times(folder: Path, name: str, users: list[str], lengths: IntArray) -> tuple[IntArray, ...] | None:
    """The time of each item; None without a file of times."""
    try:
        path = _found(folder, f"{name}_times.txt")
    except DataError:
        return None
    rows = []
    for (number, line), wanted, length in zip(_lines(path), users, lengths.tolist(), strict=False):
        user, *texts = line.split()
        if user != wanted or len(texts) != length:
            raise DataError(
                f"{path}, line {number}: user {user!r} with {len(texts)} times, where {name}.txt has user {wanted!r} "
                f"with {length} items: write the same users in the same order, with one time per item"
            )
        try:
            times = np.array([int(text) for text in texts], dtype=np.int64)
        except (ValueError, OverflowError) as error:
            raise DataError(
                f"{path}, line {number}: a time is a whole number of seconds since 1970 ({error})"
            ) from error
        if (np.diff(times) < 0).any():
            raise DataError(f"{path}, line {number}: a time is before that of the item before; order the items by time")
        rows.append(times)
    if len(rows) < len(users):
        raise DataError(f"{path} has the times of {len(rows)} users, and {name}.txt has {len(users)} users")
    return tuple(rows)


def _texts(folder: Path, name: str, item_ids: tuple[str, ...]) -> list[tuple[str, str]]:
    """Title and text of each item."""
    try:
        path = _found(folder, f"{name}_items.jsonl")
    except DataError:
        return [(item, item) for item in item_ids]
    known: dict[str, tuple[str, str]] = {}
    for number, line in _lines(path):
        try:
            row: dict[str, Any] = json.loads(line)
            phrase, keywords = row.get("phrase") or "", ", ".join(row["keywords"])
            known[row["item_id"]] = (phrase or keywords, f"{phrase}. {keywords}" if phrase else keywords)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}: no item with item_id and keywords ({error!r})") from error
    missing = [item for item in item_ids if item not in known]
    if missing:
        raise DataError(f"{path} lacks {len(missing)} of {len(item_ids)} items of {name}, e.g. {missing[0]!r}")
    return [known[item] for item in item_ids]


def _found(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder} has neither {name} nor {name}.gz: set the folder of the benchmark files")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, line
