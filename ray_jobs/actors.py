"""Run tables through copies of a model on Ray actors."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

_RETRIES = 3


def through(
    model: type, arguments: tuple[Any, ...], tables: Iterable[pa.Table], copies: int, cpus: float, use_gpu: bool = False
) -> Iterator[pa.Table]:
    """Apply a model to each of `tables`, in no particular order.

    Each actor works on one table at a time. An actor that dies is restarted and its table repeated.

    Args:
        model: class with a method ``__call__(table)`` that returns a table.
        arguments: of its constructor.
        copies: number of actors.
        cpus: logical cores of each actor.
        use_gpu: also give each actor a GPU.
    """
    import ray
    from ray.util import ActorPool

    from ray_jobs.cluster import connect

    connect()
    kind = ray.remote(_Copy).options(
        num_cpus=cpus, num_gpus=1 if use_gpu else 0, max_restarts=_RETRIES, max_task_retries=_RETRIES
    )
    actors: list[Any] = [kind.remote(model, arguments) for _ in range(copies)]
    pool = ActorPool(actors)
    try:
        for table in tables:
            if not pool.has_free():
                yield pool.get_next_unordered()
            pool.submit(lambda actor, given: actor.answer.remote(given), table)
        while pool.has_next():
            yield pool.get_next_unordered()
    finally:
        for actor in actors:
            ray.kill(actor)


class _Copy:
    def __init__(self, model: type, arguments: tuple[Any, ...]) -> None:
        self._model = model(*arguments)

    def answer(self, table: pa.Table) -> pa.Table:
        return self._model(table)
