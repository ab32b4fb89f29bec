"""Run one Spark stage under spark-submit: ``spark-submit ... stage.py <stage> <arguments of the stage>``.

The script has its own folder because Python puts the folder of a script first on its path, where modules of ours would
hide packages of the same name.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from schemas.stages import STAGES


def run(words: Sequence[str]) -> None:
    """Run the stage that `words` names first, with the other words as its arguments; see `run_stage`."""
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
    """Run the stage of the command line."""
    folder = str(Path(__file__).parent)
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    run(sys.argv[1:])


if __name__ == "__main__":
    main()
