"""Run one Spark stage under spark-submit: ``spark-submit ... stage.py <stage> <arguments of the stage>``.

This file lies in a folder of its own because Python puts the folder of a started script first on its path, where
modules of ours would stand before packages of the same name.
"""

import importlib
import sys
from pathlib import Path

STAGES = (
    "ingest",
    "sequences",
    "review_summaries",
    "preferences",
    "denoised_sequences",
    "item_descriptions",
    "preference_benchmark",
    "erasure",
)


def main() -> None:
    """Import the stage named first on the command line and run it with the rest."""
    folder = str(Path(__file__).parent)
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    if len(sys.argv) < 2 or sys.argv[1] not in STAGES:
        named = sys.argv[1] if len(sys.argv) > 1 else "nothing"
        raise SystemExit(f"usage: stage.py STAGE [arguments], with STAGE one of {', '.join(STAGES)}; got {named}")
    module = importlib.import_module(f"pipelines.{sys.argv.pop(1)}")
    from pipelines.later_days import with_later_days
    from schemas.stage import run_stage

    run_stage(module.STAGE, module.__doc__ or "", with_later_days(module.STAGE, module.run))


if __name__ == "__main__":
    main()
