"""Run one Spark stage under spark-submit: ``spark-submit ... stage.py <stage> <arguments of the stage>``.

This file lies in a folder of its own because Python puts the folder of a started script first on its path, where
modules of ours would stand before packages of the same name.
"""

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

from pipelines import stages

STAGES = tuple(sorted(module.name for module in pkgutil.iter_modules(stages.__path__)))


def main() -> None:
    """Import the stage named first on the command line and run it with the rest."""
    folder = str(Path(__file__).parent)
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES, help="and after it the stage's own arguments; STAGE --help lists them")
    module = importlib.import_module(f"pipelines.stages.{parser.parse_args(sys.argv[1:2]).stage}")
    del sys.argv[1]
    from pipelines.later_days import with_later_days
    from schemas.stage import run_stage

    run_stage(module.STAGE, module.__doc__ or "", with_later_days(module.STAGE, module.run))


if __name__ == "__main__":
    main()
