"""Run one stage of Ray: ``python -m ray_jobs.stages <stage> <arguments of the stage>``."""

import sys

from ray_jobs.stages.entry import run
from schemas.stage_runner import run_named

if __name__ == "__main__":
    run_named("ray", run, __doc__ or "", sys.argv[1:])
