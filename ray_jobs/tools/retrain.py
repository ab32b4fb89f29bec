"""Train a registered version again from what it was made of, and compare.

penchant retrain --model penchant-shop/3

It reads the tables at the versions that the model read, with its settings, codebook and the version it began with,
trains under a run of its own, evaluates in the same way and sets the two side by side. Nothing is registered and no
alias moves. The same command again attaches to the reproduction that is there. The exit status is 0 when the two
agree, 1 when they differ beyond the tolerance, 2 when something is gone.
"""

import argparse
import sys
from collections.abc import Sequence

from infra.errors import UserError
from infra.settings import load_settings


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; see the module for the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="<name>/<version> or <name>@<alias>, e.g. penchant-shop/3")
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="largest difference that is no failure; on GPUs some 1e-3"
    )
    parser.add_argument("--users", type=int, default=20, help="users whose recommendations are compared")
    parser.add_argument("--generation", type=int, default=0, help="raise it to train once more")
    given = parser.parse_args(argv)
    if given.users < 1 or given.tolerance < 0:
        parser.error("--users has to be at least 1, and --tolerance not below 0")
    try:
        settings = load_settings()
        from ray_jobs.registry.comparison import Verdict
        from ray_jobs.registry.retraining import render, reproduce

        done = reproduce(settings, given.model, given.tolerance, given.users, given.generation)
    except UserError as error:
        sys.stderr.write(f"retrain: {type(error).__name__}: {error}\n")
        return 2
    sys.stdout.write(f"{render(done)}")
    return int(done.comparison.verdict is Verdict.DIFFERS)


if __name__ == "__main__":
    raise SystemExit(main())
