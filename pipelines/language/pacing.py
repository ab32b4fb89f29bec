"""How fast an endpoint may be asked: the number of requests in flight follows what it bears."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from email.utils import parsedate_to_datetime


class Stopped(Exception):
    """Nothing more is to be sent."""


class Pacer:
    """Lets requests out: additive increase and multiplicative decrease, as TCP shares a line (Chiu and Jain, 1989).

    A throttled reply halves the number in flight, once for all the requests that were out when it came; every
    answered request adds ``1 / allowed``, so that about one more is let out per round.

    Args:
        most: the number in flight at the beginning and at best.
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
        """How many requests may be in flight now."""
        return int(self._allowed)

    def begin(self) -> None:
        """Make ready for another event loop; what was learnt of the endpoint is kept."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._stopped = asyncio.Event()

    async def enter(self) -> int:
        """Wait for a turn and take it; `leave` gives it back. Returns what `throttled` wants to know.

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
                turn = asyncio.get_running_loop().create_future()
                self._waiting.append(turn)
                await turn

    def leave(self) -> None:
        """Give the turn back."""
        self._in_flight -= 1
        self._wake(self.allowed - self._in_flight)

    def answered(self) -> None:
        """The endpoint answered: a little more is allowed."""
        self.last_answer = time.monotonic()
        self._allowed = min(self._most, self._allowed + 1 / self._allowed)

    def throttled(self, turn: int) -> None:
        """The endpoint said that this is too much, to a request that was let out with `turn`."""
        if turn == self._generation:
            self._generation += 1
            self._allowed = max(1.0, self._allowed / 2)

    def hold(self, seconds: float) -> None:
        """Let nothing out for so long."""
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
        """Wake all that wait and let nothing more out; what is in flight may end."""
        self._stopped.set()
        self._wake(len(self._waiting))

    def _wake(self, count: int) -> None:
        while count > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                count -= 1


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply asks to wait (``retry-after-ms``, or ``retry-after`` in seconds or as a date), or None."""
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
        if seconds == seconds:  # "nan" is a float, too
            return max(0.0, seconds)
    return None
