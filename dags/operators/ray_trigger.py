"""A trigger that waits for a Ray job in Airflow's triggerer, without a worker."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from airflow.triggers.base import BaseTrigger, TriggerEvent

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
LONGEST_PAUSE_S = 15.0
PATIENCE_S = 300.0
"""Seconds without a response after which the cluster counts as lost."""
TIMEOUT_S = 30.0
REFUSALS = (401, 403, 404)


class RayJobTrigger(BaseTrigger):
    """Follow a Ray job until it has ended, its time is up, or it cannot be followed.

    All state is in the arguments and in Ray, so it survives a restart of the triggerer; log lines since the deferral
    are then logged again. The cluster's token comes from the triggerer's environment, because Airflow stores arguments
    in its database.

    Args:
        address: URL of the Ray dashboard.
        submission_id: of the job.
        shown: characters of the job's log that were logged before.
        until: deadline in seconds since 1970.
    """

    def __init__(self, *, address: str, submission_id: str, shown: int, until: float) -> None:
        super().__init__()
        self.address = address
        self.submission_id = submission_id
        self.shown = shown
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments."""
        arguments = ("address", "submission_id", "shown", "until")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in arguments}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: the characters of the log shown, and why the job cannot be followed, if so."""
        began = answered = time.monotonic()
        shown, problem = self.shown, ""
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:
            while True:
                try:
                    status, log = await self._look(http)
                except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
                    problem = str(error).partition("\n")[0] or type(error).__name__
                    if _is_refusal(error) or time.monotonic() > answered + PATIENCE_S:
                        break
                    self.log.warning("Cannot read the state of job %s: %s", self.submission_id, problem)
                else:
                    answered, problem = time.monotonic(), ""
                    for line in log[shown:].splitlines():
                        self.log.info("%s", line)
                    shown = len(log)
                    if status in ENDED:
                        break
                if time.time() > self.until:
                    break
                await asyncio.sleep(min(LONGEST_PAUSE_S, 0.5 + (time.monotonic() - began) / 10))
        yield TriggerEvent({"shown": shown, "problem": problem})

    async def on_kill(self) -> None:
        """Stop the job when a user clears the task or sets its state."""
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:
            answer = await http.post(f"{self._url}/stop", headers=token_header())
            answer.raise_for_status()

    @property
    def _url(self) -> str:
        address = self.address if "://" in self.address else f"http://{self.address}"
        return f"{address.rstrip('/')}/api/jobs/{self.submission_id}"

    async def _look(self, http: httpx.AsyncClient) -> tuple[str, str]:
        """Status and log of the job."""
        found = []
        for url, name in ((self._url, "status"), (f"{self._url}/logs", "logs")):
            answer = await http.get(url, headers=token_header())
            answer.raise_for_status()
            found.append(str(answer.json()[name]))
        return found[0], found[1]


def _is_refusal(error: Exception) -> bool:
    """Whether the cluster does not know the job or refuses the token, so that waiting is useless."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code in REFUSALS


def token_header() -> dict[str, str]:
    """The header with the cluster's token, from the variables and files that Ray's own client reads.

    Raises:
        OSError: the token's file cannot be read.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    if not token:
        path = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
        token = Path(path).expanduser().read_text()
    return {"Authorization": f"Bearer {token.strip()}"}
