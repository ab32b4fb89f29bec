"""The frame around every stage's entry point: parse, run, time, report."""

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace

from schemas.handoff import StageReport, error_uri, write_report, write_text
from schemas.stage_request import StageRequest

DISK_FULL = "No space left on device"


def run_stage(
    stage: str, description: str, work: Callable[[StageRequest], StageReport], argv: Sequence[str] | None = None
) -> StageReport:
    """Run `work` for the request on the command line and leave its report.

    User errors (`ValueError` and its kin: bad data, bad settings) end the process with status 2 and one clear
    message, which is also left beside the report for whoever submitted the stage; anything else is a bug and keeps
    its traceback. A full disk, which another try may find freed, has its traceback and then one message.
    """
    request = StageRequest.parse(stage, description, argv)
    started = time.monotonic()
    try:
        report = work(request)
    except ValueError as error:
        message = f"{stage}: {type(error).__name__}: {error}"
        print(message, file=sys.stderr, flush=True)  # noqa: T201
        if request.report_uri:
            write_text(error_uri(request.report_uri), message)
        raise SystemExit(2) from error
    except Exception as error:
        if DISK_FULL not in str(error):
            raise
        traceback.print_exc()
        message = f"{stage}: {DISK_FULL}. Tables keep what they had: free space, and run the stage again"
        print(message, file=sys.stderr, flush=True)  # noqa: T201
        raise SystemExit(1) from error
    report = replace(report, seconds=round(time.monotonic() - started, 3))
    if request.report_uri:
        write_report(request.report_uri, report)
    counts = ", ".join(f"{name} {value}" for name, value in report.counts.items())
    print(f"{stage}: {report.status} in {report.seconds:.1f} s; {counts}", flush=True)  # noqa: T201
    return report
