"""Make an earlier version of a data set's model champion again.

The default is the version that was champion before. The version that loses the alias is tagged with the reason, and a
rerun of its register stage does not promote it again.
``penchant rollback --dataset shop --to 12 --reason "..."``
"""

import json
from collections.abc import Sequence

from ray_jobs.stages.entry import command_parser, run
from schemas.handoff import StageReport
from schemas.stage_runner import run_stage

STAGE = "rollback"


def main(argv: Sequence[str] | None = None) -> StageReport:
    """Run the stage from the arguments of a stage, or from the short ones for people."""
    parser = command_parser(__doc__)
    parser.add_argument("--to", default="", help="number of the version; by default the previous champion")
    parser.add_argument("--reason", default="", help="why, shown in the registry")
    parser.add_argument("--upstream", type=json.loads, default={}, metavar="JSON", help="outputs of an earlier task")
    given, rest = parser.parse_known_args(argv)
    target = {f"target.{key}": value for key in ("to", "reason") if (value := getattr(given, key))}
    upstream = json.dumps({**given.upstream, **target})
    words = [f"--dataset={given.dataset}", f"--partition={given.partition}", f"--upstream={upstream}"]
    report = run_stage(STAGE, run, [*words, *rest])
    print(report.outputs["decision"])  # noqa: T201
    return report
