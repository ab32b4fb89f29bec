"""Batches of requests for one model, formed whenever the model is free."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ray_jobs.serving.answering import Answer, Job, answer

LIST_SHARE = 2
"""Maximum number of jobs from lists in a batch with single jobs, so that lists delay single requests little."""
Waiting = tuple[Job, asyncio.Future[Answer | Exception]]


class Batcher:
    """Answers jobs in batches, in one thread; for one event loop.

    A batch is formed when the thread is free, so it holds everything that arrived while the previous batch ran.
    `serve.batch` forms batches in advance, from what arrives within the waiting time: with 32 clients they held 3 jobs
    on average, and the model takes only three times as long for 16 jobs as for 3.

    Single jobs and jobs from lists are each served in order of arrival; lists get `LIST_SHARE` places of a batch, and
    all of them while no single job waits. `batches`, `jobs` and `seconds` add up what the thread has answered.

    Args:
        size: maximum number of jobs in a batch.
        wait_s: seconds that a batch that is not full waits for more jobs.
        run: answers a batch.
    """

    def __init__(
        self,
        size: int,
        wait_s: float,
        run: Callable[[Sequence[Job]], Sequence[Answer | Exception]] = answer,
    ) -> None:
        self._size, self._wait_s, self._run = size, wait_s, run
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._single: deque[Waiting] = deque()
        self._listed: deque[Waiting] = deque()
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self.batches, self.jobs, self.seconds = 0, 0, 0.0

    @property
    def waiting(self) -> int:
        """Number of jobs that wait."""
        return len(self._single) + len(self._listed)

    async def answer(self, job: Job, listed: bool = False) -> Answer | Exception:
        """Wait for the answer to `job`, or its error; the job of a cancelled caller is dropped."""
        self._worker = self._worker or asyncio.create_task(self._work())
        done: asyncio.Future[Answer | Exception] = asyncio.get_running_loop().create_future()
        (self._listed if listed else self._single).append((job, done))
        self._arrived.set()
        return await done

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while await self._arrived.wait():
            if self.waiting < self._size:
                await asyncio.sleep(self._wait_s)
            batch = self._next()
            if not self.waiting:
                self._arrived.clear()
            if not batch:
                continue
            jobs = [job for job, _ in batch]
            found: Sequence[Answer | Exception]
            began = time.perf_counter()
            try:
                found = await loop.run_in_executor(self._thread, self._run, jobs)
            except Exception as error:
                found = [error] * len(batch)
            self.batches, self.jobs = self.batches + 1, self.jobs + len(batch)
            self.seconds += time.perf_counter() - began
            for (_, done), one in zip(batch, found, strict=True):
                if not done.done():
                    done.set_result(one)

    def _next(self) -> list[Waiting]:
        share = min(LIST_SHARE, len(self._listed), self._size - 1)
        batch = _taken(self._single, self._size - share)
        return batch + _taken(self._listed, share if batch else self._size)


def _taken(waiting: deque[Waiting], most: int) -> list[Waiting]:
    """The first jobs that wait, without those of cancelled callers."""
    taken: list[Waiting] = []
    while waiting and len(taken) < most:
        job, done = waiting.popleft()
        if not done.done():
            taken.append((job, done))
    return taken
