"""Run tables, or other work, through copies of a model on Ray actors."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_RETRIES = 3
Run = Callable[[Iterable[Any]], Iterator[Any]]


def through(
    model: type, arguments: tuple[Any, ...], given: Iterable[Any], copies: int, cpus: float, use_gpu: bool = False
) -> Iterator[Any]:
    """Apply a model to each of `given`, such as tables, in their order.

    Each actor works on one at a time. An actor that dies is restarted and its work repeated.

    Args:
        model: class with a method ``__call__(one)``.
        arguments: of its constructor.
        copies: number of actors.
        cpus: logical cores of each actor.
        use_gpu: also give each actor a GPU.
    """
    with copies_of(model, arguments, copies, cpus, use_gpu) as run:
        yield from run(given)


@contextmanager
def copies_of(
    model: type, arguments: tuple[Any, ...], copies: int, cpus: float, use_gpu: bool = False
) -> Iterator[Run]:
    """`through` for several calls with the same actors, which end with the context."""
    import ray
    from ray.util import ActorPool

    from ray_jobs.cluster import connect

    connect()
    kind = ray.remote(_Copy).options(
        num_cpus=cpus, num_gpus=1 if use_gpu else 0, max_restarts=_RETRIES, max_task_retries=_RETRIES
    )
    actors: list[Any] = [kind.remote(model, arguments) for _ in range(copies)]
    pool = ActorPool(actors)

    def run(given: Iterable[Any]) -> Iterator[Any]:
        for one in given:
            if not pool.has_free():
                yield pool.get_next()
            pool.submit(lambda actor, one: actor.answer.remote(one), one)
        while pool.has_next():
            yield pool.get_next()

    try:
        yield run
    finally:
        for actor in actors:
            ray.kill(actor)


class _Copy:
    def __init__(self, model: type, arguments: tuple[Any, ...]) -> None:
        self._model = model(*arguments)

    def answer(self, given: Any) -> Any:
        return self._model(given)
