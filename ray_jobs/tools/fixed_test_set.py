"""Evaluate a model version on a fixed test set.

penchant probe --model penchant-shop@champion --probe probe.jsonl

The test set has a line per user, ``{"history": [item ids], "next": item id}``, and is the same on all days, so that
versions of different days can be compared. The last line printed is JSON.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.commands.terminal import command
from infra.settings import load_settings
from schemas.errors import DataError

CUT = 10


def ndcg(lists: Sequence[Sequence[str]], nexts: Sequence[str]) -> float:
    """Mean NDCG@10 with one relevant item per list."""
    gains = [
        1 / math.log2(2 + list(items[:CUT]).index(wanted)) if wanted in items[:CUT] else 0.0
        for items, wanted in zip(lists, nexts, strict=True)
    ]
    return sum(gains) / len(gains)


def read_test_set(path: Path) -> tuple[list[list[str]], list[str]]:
    """Histories and next items.

    Raises:
        DataError: the file is missing or empty, or a line is incomplete.
    """
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found = [list(map(str, line["history"])) for line in lines], [str(line["next"]) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f'{path} is no test set ({error}); a line is {{"history": [...], "next": ...}}') from error
    if not lines:
        raise DataError(f"{path} has no line; a test set needs at least one user")
    return found


def measure(reference: str, path: Path) -> dict[str, str | float | int]:
    """NDCG@10 of the version that `reference` names (``<name>/<version>`` or ``<name>@<alias>``).

    Raises:
        SettingError: there is no such version.
        DataError: the test set cannot be read.
    """
    settings = load_settings()
    histories, nexts = read_test_set(path)
    from ray_jobs.registry import runs, versions

    found = versions.resolve(runs.connect(settings), reference)
    answers = versions.load_version(found).recommend(histories, [None] * len(histories), CUT)
    return {
        "model": f"{found.name}/{found.version}",
        "users": len(nexts),
        "ndcg_10": round(ndcg([[item for item, _ in row] for row in answers], nexts), 6),
    }


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="<name>/<version> or <name>@<alias>")
    parser.add_argument("--probe", type=Path, required=True, help="JSON lines of history and next")
    given = parser.parse_args(argv)
    sys.stdout.write(json.dumps(measure(given.model, given.probe)) + "\n")


if __name__ == "__main__":
    main()
