"""``ray start`` for the local profile, whose processes look less often for what nobody waits for.

``python -m ray_jobs.local_ray start ...`` does as ``ray start ...``, with two differences. It starts no server for Ray
Client, because jobs are submitted. It runs two scripts of Ray through this module, which lengthens intervals that have
no setting: the log monitor looks ten times a second for lines, and the dashboard asks each of its nine modules every
second whether it is well. Intervals that are settings are in `infra.local_environment`.
"""

import argparse
import asyncio
import runpy
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LINES_S = 0.5
HEALTH_S = 10.0


def start(words: Sequence[str]) -> None:
    """Run Ray's command line with `words`."""
    from ray._private import node, ray_constants, services
    from ray.scripts.scripts import main as ray_main

    scripts = {ray_constants.PROCESS_TYPE_LOG_MONITOR, ray_constants.PROCESS_TYPE_DASHBOARD}
    start_process = services.start_ray_process

    def start_patient(command: list[str], process_type: str, *given: Any, **named: Any) -> Any:
        if process_type in scripts:
            script = next(place for place, word in enumerate(command) if word.endswith(".py"))
            command = [*command[:script], "-m", "ray_jobs.local_ray", *command[script:]]
        return start_process(command, process_type, *given, **named)

    services.start_ray_process = start_patient
    node.Node.start_ray_client_server = lambda _: None  # type: ignore[method-assign]
    sys.argv = ["ray", *words]
    ray_main()


def run_script(script: str, words: Sequence[str]) -> None:
    """Run one of Ray's scripts with longer intervals."""
    if Path(script).name == "log_monitor.py":
        look_rarely()
    else:
        ask_rarely()
    sys.argv = [script, *words]
    runpy.run_path(script, run_name="__main__")


def look_rarely() -> None:
    """Let no pause of this process be shorter than `LINES_S`."""
    pause = time.sleep
    time.sleep = lambda seconds: pause(max(float(seconds), LINES_S))


def ask_rarely() -> None:
    """Wait `HEALTH_S` before the dashboard asks a module whether it is well."""
    from ray.dashboard.subprocesses.handle import SubprocessModuleHandle

    ask = SubprocessModuleHandle._do_once_health_check

    async def ask_later(self: Any) -> None:
        await asyncio.sleep(HEALTH_S)
        await ask(self)

    SubprocessModuleHandle._do_once_health_check = ask_later  # type: ignore[method-assign]


def main() -> None:
    """Run Ray's command line, or a script of Ray's by its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", help="start, or the path of a script of Ray")
    given, words = parser.parse_known_args()
    if given.command.endswith(".py"):
        run_script(given.command, words)
    else:
        start([given.command, *words])


if __name__ == "__main__":
    main()
