"""Remove old model versions, checkpoints and table history that no kept version needs.

Kept are versions with an alias or the tag ``penchant.keep``, the newest and the youngest versions, the version a
roll-back returns to, and the versions that these started from. The tables that a kept version was trained on stay
readable at their versions. The plan names who needs what. After the deletion every kept version is checked again; the
stage fails if one has lost something. ``penchant clean-up --dataset shop --dry-run`` only shows the plan.
"""

import json
from collections.abc import Sequence

from ray_jobs.stages.entry import command_parser, run
from schemas.handoff import StageReport
from schemas.stage_runner import run_stage

STAGE = "clean_up"


def main(argv: Sequence[str] | None = None) -> StageReport:
    """Run the stage from the arguments of a stage, or from the short ones for people."""
    parser = command_parser(__doc__)
    parser.add_argument("--dry-run", action="store_true", help="only show what would be removed")
    parser.add_argument(
        "--overrides", type=json.loads, default={}, metavar="JSON", help="e.g. '{\"clean_up.keep_versions\": 5}'"
    )
    given, rest = parser.parse_known_args(argv)
    overrides = {**given.overrides, **({f"{STAGE}.dry_run": True} if given.dry_run else {})}
    words = [f"--dataset={given.dataset}", f"--partition={given.partition}", f"--overrides={json.dumps(overrides)}"]
    return run_stage(STAGE, run, [*words, *rest])
