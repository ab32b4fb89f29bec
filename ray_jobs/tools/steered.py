"""Print how a champion's lists follow words: for a few users the lists without words, with a wish, with a refusal.

penchant steered --dataset planted-world
penchant steered --dataset planted-world --categories 20
"""

import argparse
import sys
from collections.abc import Sequence

from infra.commands.terminal import command
from infra.settings import load_settings
from schemas.model_versions import CHAMPION
from schemas.names import DATASET


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; the exit status is 2, with one message, if something is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=DATASET, required=True, help="name of a registered data set")
    parser.add_argument("--alias", default=CHAMPION, help=f"of the version; {CHAMPION} by default")
    parser.add_argument("--users", type=int, default=3, help="how many users to show")
    parser.add_argument("--categories", type=int, help="measure wishes for this many common categories instead")
    given = parser.parse_args(argv)
    settings = load_settings()
    from ray_jobs.serving.steered_lists import by_category, steered

    if given.categories:
        sys.stdout.write(by_category(settings, given.dataset, given.alias, 60, given.categories))
        return
    bold = sys.stdout.isatty()
    sys.stdout.write(steered(settings, given.dataset, given.alias, given.users, bold))


if __name__ == "__main__":
    main()
