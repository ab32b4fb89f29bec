"""A cache of answers that travels between processes without its content."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """`functools.lru_cache` of a method; unlike that one it can be pickled with its object, and then starts empty."""

    def __init__(self, method: Callable[[str], T], most: int) -> None:
        self._method, self._most = method, most
        self._cached = lru_cache(most)(method)

    def __call__(self, text: str) -> T:
        """The method's answer for `text`."""
        return self._cached(text)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._method, self._most)
