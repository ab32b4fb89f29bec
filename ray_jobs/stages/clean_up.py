"""Remove old model versions, checkpoints and table history, and nothing that a kept version needs.

Kept are versions with an alias or the tag ``penchant.keep``, the newest, the young, the one to roll back to, and what
these began with. The tables they were trained on stay readable at their versions. The plan says what is needed by whom;
after the deletion every kept version is looked up again, and one that has lost something fails the stage.
``penchant clean-up --dataset shop --dry-run`` only shows the plan.
"""

import argparse
import datetime as dt
import json
from collections.abc import Sequence

from infra.settings import load_settings, stage_settings
from ray_jobs.retention.settings import CleanUpSettings
from schemas.handoff import StageReport
from schemas.names import DATASET, DAY
from schemas.stage_request import StageRequest
from schemas.stage_runner import engine_is_ready, run_stage

STAGE = "clean_up"


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `ray_jobs.clean_up`."""
    settings = load_settings()
    stage_settings(CleanUpSettings, settings, request)
    from ray_jobs.clean_up import run as work

    engine_is_ready()
    return work(request)


def main(argv: Sequence[str] | None = None) -> StageReport:
    """Run the stage from its own arguments, or from the short ones for people."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=DATASET, required=True, help="name of a registered data set")
    parser.add_argument("--dry-run", action="store_true", help="show what would go, and remove nothing")
    parser.add_argument(
        "--partition",
        type=DAY,
        default=str(dt.datetime.now(dt.UTC).date()),
        help="day of the report, today",
    )
    parser.add_argument(
        "--overrides", type=json.loads, default={}, metavar="JSON", help="e.g. '{\"clean_up.keep_versions\": 5}'"
    )
    given, rest = parser.parse_known_args(argv)
    overrides = {**given.overrides, **({f"{STAGE}.dry_run": True} if given.dry_run else {})}
    whole = [f"--dataset={given.dataset}", f"--partition={given.partition}", f"--overrides={json.dumps(overrides)}"]
    return run_stage(STAGE, __doc__ or "", run, [*whole, *rest])


if __name__ == "__main__":
    main()
