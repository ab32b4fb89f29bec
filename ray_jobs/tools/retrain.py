"""Train a registered version again from its provenance, and compare.

penchant retrain --model penchant-shop/3

Reads the same table versions, with the same settings, codebook and warm start, trains in a separate run, evaluates in
the same way and compares the two. Nothing is registered and no alias moves. The same command again attaches to an
existing reproduction. The exit status is 0 if the two agree, 1 if they differ by more than the tolerance, 2 if
something is missing.
"""

import argparse
import sys
from collections.abc import Sequence

from infra.commands.terminal import command
from infra.settings import load_settings


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; see the module for the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="<name>/<version> or <name>@<alias>, e.g. penchant-shop/3")
    parser.add_argument("--tolerance", type=float, default=0.0, help="largest accepted difference; about 1e-3 on GPUs")
    parser.add_argument("--users", type=int, default=20, help="users whose recommendations are compared")
    parser.add_argument("--generation", type=int, default=0, help="raise it to train again")
    given = parser.parse_args(argv)
    if given.users < 1 or given.tolerance < 0:
        parser.error("--users must be at least 1, and --tolerance not negative")
    settings = load_settings()
    from ray_jobs.registry.comparison import Verdict
    from ray_jobs.registry.retraining import render, reproduce

    done = reproduce(settings, given.model, given.tolerance, given.users, given.generation)
    sys.stdout.write(f"{render(done)}")
    return int(done.comparison.verdict is Verdict.DIFFERS)


if __name__ == "__main__":
    raise SystemExit(main())
