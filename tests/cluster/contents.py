"""What the tables of a data set contain, as JSON: ``python -m tests.cluster.contents --dataset shop``.

For each table the number of rows and a digest that does not depend on their order or on the files.
"""

import argparse
import hashlib
import json
import re
import sys

from deltalake import DeltaTable

from infra.settings import load_settings
from ray_jobs.data.tables import read_table
from schemas.tables import TABLES

OTHER_EACH_TIME = {
    "codebook": "its name is a digest of its inputs, whose addresses count",
    "run": "the name of a try",
    "latency_ms": "a measurement",
    "answered_at": "a time",
}
"""Columns that differ between two runs of the same, and why."""
IDENTITY = re.compile(r"--[0-9a-f]{12}--g")
"""The digest in a run's identity, in which addresses of inputs count."""


def rows(uri: str) -> list[str]:
    """The rows of a table as sorted text, without `OTHER_EACH_TIME` and digests of identities."""
    table = read_table(uri)
    kept = [name for name in table.column_names if name not in OTHER_EACH_TIME]
    texts = (json.dumps(row, default=str, sort_keys=True) for row in table.select(kept).to_pylist())
    return sorted(IDENTITY.sub("--g", text) for text in texts)


def contents(dataset: str) -> dict[str, tuple[int, str]]:
    """Rows and digest of each table that there is."""
    settings = load_settings()
    found = {}
    for name in TABLES:
        uri = settings.table_uri(dataset, name)
        if DeltaTable.is_deltatable(uri):
            text = rows(uri)
            found[name] = (len(text), hashlib.sha256("\n".join(text).encode()).hexdigest()[:12])
    return found


def main() -> None:
    """Print the contents, or the rows of one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--table", help="print the rows of this table instead")
    given = parser.parse_args()
    if given.table:
        print("\n".join(rows(load_settings().table_uri(given.dataset, given.table))))
    else:
        json.dump(contents(given.dataset), sys.stdout)


if __name__ == "__main__":
    main()
