"""Run one Spark stage under spark-submit: ``spark-submit ... stage.py <stage> <arguments of the stage>``.

The script has its own folder because Python puts the folder of a script first on its path, where modules of ours would
hide packages of the same name.
"""

import sys
from collections.abc import Sequence
from pathlib import Path


def run(words: Sequence[str]) -> None:
    """Run the stage that `words` names first, see `run_named`."""
    from pipelines.stages.entry import run as work
    from schemas.stage_runner import run_named

    run_named("spark", work, __doc__ or "", words)


def main() -> None:
    """Run the stage of the command line."""
    folder = str(Path(__file__).parent)
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    run(sys.argv[1:])


if __name__ == "__main__":
    main()
