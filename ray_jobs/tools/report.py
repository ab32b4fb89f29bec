"""Print a finished day: a few users with their recommendations, metrics, version and counts.

penchant report --dataset planted-world --partition 2026-01-31
"""

import argparse
import sys
from collections.abc import Sequence

from infra.commands.terminal import command
from infra.settings import load_settings
from schemas.names import DATASET, DAY


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; the exit status is 2, with one message, if something is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=DATASET, required=True, help="name of a registered data set")
    parser.add_argument("--partition", type=DAY, required=True, help="day, e.g. 2026-01-31")
    parser.add_argument("--users", type=int, default=3, help="how many users to show")
    given = parser.parse_args(argv)
    settings = load_settings()
    from ray_jobs.days.printed import report

    sys.stdout.write(report(settings, given.dataset, given.partition, given.users))


if __name__ == "__main__":
    main()
