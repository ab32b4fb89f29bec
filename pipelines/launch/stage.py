"""Run one Spark stage under spark-submit: ``spark-submit ... stage.py <stage> <arguments of the stage>``.

This file lies in a folder of its own because Python puts the folder of a started script first on its path, where
modules of ours would stand before packages of the same name.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from schemas.stages import STAGES


def run(words: Sequence[str]) -> None:
    """Run the stage named first with the arguments that follow; ends as `run_stage` does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "stage",
        choices=sorted(name for name, one in STAGES.items() if one.engine == "spark"),
        help="and after it the stage's own arguments; STAGE --help lists them",
    )
    module = importlib.import_module(STAGES[parser.parse_args(words[:1]).stage].module)
    from pipelines.later_days import with_later_days
    from schemas.stage_runner import run_stage

    run_stage(module.STAGE, module.__doc__ or "", with_later_days(module.STAGE, module.run), words[1:])


def main() -> None:
    """Run what the command line names."""
    folder = str(Path(__file__).parent)
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    run(sys.argv[1:])


if __name__ == "__main__":
    main()
