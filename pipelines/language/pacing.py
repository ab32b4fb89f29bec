"""Adapts the number of requests in flight to what an endpoint accepts."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from email.utils import parsedate_to_datetime


class Stopped(Exception):
    """No more requests are to be sent."""


class Pacer:
    """Limits requests in flight by additive increase and multiplicative decrease, as in TCP (Chiu and Jain, 1989).

    A throttled reply halves the limit, once for all requests in flight at that moment; every answer adds
    ``1 / allowed``, about one per round.

    Args:
        most: the first and largest limit.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._allowed = float(most)
        self._in_flight = 0
        self._generation = 0
        self._not_before = 0.0
        self.last_answer = 0.0
        self.begin()

    @property
    def allowed(self) -> int:
        """The current limit."""
        return int(self._allowed)

    def begin(self) -> None:
        """Prepare for another event loop, keeping the limit."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._stopped = asyncio.Event()

    async def enter(self) -> int:
        """Wait for a slot and take it, until `leave`. Returns the argument of `throttled`.

        Raises:
            Stopped: `stop` was called.
        """
        while True:
            if self._stopped.is_set():
                raise Stopped
            if (wait := self._not_before - time.monotonic()) > 0:
                await self.pause(wait)
            elif self._in_flight < self.allowed:
                self._in_flight += 1
                return self._generation
            else:
                slot = asyncio.get_running_loop().create_future()
                self._waiting.append(slot)
                await slot

    def leave(self) -> None:
        """Release a slot."""
        self._in_flight -= 1
        self._wake(self.allowed - self._in_flight)

    def answered(self) -> None:
        """Raise the limit after an answer."""
        self.last_answer = time.monotonic()
        self._allowed = min(self._most, self._allowed + 1 / self._allowed)

    def throttled(self, generation: int) -> None:
        """Halve the limit after a throttled reply; `generation` is what `enter` returned for the request."""
        if generation == self._generation:
            self._generation += 1
            self._allowed = max(1.0, self._allowed / 2)

    def hold(self, seconds: float) -> None:
        """Send nothing for so many seconds."""
        self._not_before = max(self._not_before, time.monotonic() + seconds)

    async def pause(self, seconds: float) -> None:
        """Sleep.

        Raises:
            Stopped: `stop` was called.
        """
        try:
            await asyncio.wait_for(self._stopped.wait(), seconds)
        except TimeoutError:
            return
        raise Stopped

    def stop(self) -> None:
        """Send nothing more, and wake all that wait; requests in flight may finish."""
        self._stopped.set()
        self._wake(len(self._waiting))

    def _wake(self, count: int) -> None:
        while count > 0 and self._waiting:
            slot = self._waiting.popleft()
            if not slot.done():
                slot.set_result(None)
                count -= 1


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the headers ``retry-after-ms`` or ``retry-after`` (seconds or a date), or None."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except ValueError:
                continue
        if seconds == seconds:  # not NaN
            return max(0.0, seconds)
    return None
