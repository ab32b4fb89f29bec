"""Make an earlier version of a data set's model champion again.

Without a version it is the one that was champion before. The version that is left is tagged with the reason, and a
rerun of its register stage does not promote it.
``penchant rollback --dataset shop --to 12 --reason "..."``
"""

import argparse
import datetime as dt
import json
import sys
from collections.abc import Sequence

from infra.settings import load_settings
from schemas.handoff import StageReport
from schemas.names import DATASET, DAY
from schemas.stage_request import StageRequest
from schemas.stage_runner import engine_is_ready, run_stage

STAGE = "rollback"


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `ray_jobs.rollback`."""
    load_settings()
    from ray_jobs.rollback import run as work

    engine_is_ready()
    return work(request)


def main(argv: Sequence[str] | None = None) -> StageReport:
    """Run the stage from its own arguments, or from the short ones for people."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=DATASET, required=True, help="name of a registered data set")
    parser.add_argument("--to", default="", help="number of the version; the one that was champion before by default")
    parser.add_argument("--reason", default="", help="why, for those who find it in the registry")
    parser.add_argument(
        "--partition",
        type=DAY,
        default=str(dt.datetime.now(dt.UTC).date()),
        help="day of the report, today",
    )
    parser.add_argument(
        "--upstream", type=json.loads, default={}, metavar="JSON", help="what an earlier task looked up"
    )
    given, rest = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    upstream = {**given.upstream}
    for key in ("to", "reason"):
        if getattr(given, key):
            upstream[f"target.{key}"] = getattr(given, key)
    whole = [
        f"--dataset={given.dataset}",
        f"--partition={given.partition}",
        f"--upstream={json.dumps(upstream)}",
        *rest,
    ]
    report = run_stage(STAGE, __doc__, run, whole)
    print(report.outputs["decision"])  # noqa: T201
    return report


if __name__ == "__main__":
    main()
