"""Windows of real histories with one item swapped for another: training data without manual labels.

Only training positions are read, so test targets are neither shown nor swapped in.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ray_jobs.data.catalogue import IntArray
from ray_jobs.data.histories import Histories
from ray_jobs.denoiser.settings import SECTION, DenoiserSettings
from schemas.errors import DataError


@dataclass(frozen=True)
class Window:
    """A section of a history with one swapped item.

    Args:
        user: index into `Histories`.
        start: position of the first event in the history.
        items: catalogue indices with the swap, oldest first.
        position: index of the swapped item in `items`.
        original: the item before the swap.
    """

    user: int
    start: int
    items: tuple[int, ...]
    position: int
    original: int

    @property
    def clean(self) -> tuple[int, ...]:
        """The items before the swap."""
        return (*self.items[: self.position], self.original, *self.items[self.position + 1 :])


@dataclass(frozen=True)
class Split:
    """Windows of different users; those of `heldout` are for the report only."""

    tuning: tuple[Window, ...]
    heldout: tuple[Window, ...]
    tuning_users: tuple[int, ...]


def is_heldout(user_id: str, settings: DenoiserSettings) -> bool:
    """Whether a user's windows are held out for the report; depends on id and seed only."""
    digest = hashlib.sha256(f"{settings.seed}/{user_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < settings.heldout_share * 2**32


def split_windows(histories: Histories, settings: DenoiserSettings) -> Split:
    """Draw windows for tuning and for the report, from different users.

    Raises:
        DataError: one of the two would be empty.
    """
    heldout = {user for user in range(len(histories)) if is_heldout(histories.user_ids[user], settings)}
    tuning_users = tuple(user for user in range(len(histories)) if user not in heldout)
    places = {
        "tuning": window_places(histories, tuning_users, settings),
        "held-out": window_places(histories, sorted(heldout), settings),
    }
    for name, found in places.items():
        if not found:
            raise DataError(
                f"the histories of the {name} users (of {len(histories)}) have no window of {settings.shortest} to "
                f"{settings.window} training events: lower {SECTION}.shortest, set {SECTION}.heldout_share nearer to "
                "one half, or land more reviews"
            )
    wanted = min(settings.heldout_windows, len(places["held-out"]))
    return Split(
        tuning=tuple(draw(histories, places["tuning"], settings.windows, settings.seed)),
        heldout=tuple(draw(histories, places["held-out"], wanted, settings.seed)),
        tuning_users=tuning_users,
    )


def window_places(histories: Histories, users: Sequence[int], settings: DenoiserSettings) -> list[tuple[int, int, int]]:
    """(user, start, end) of every window: each section of `window` events, or the whole of a shorter history."""
    places: list[tuple[int, int, int]] = []
    for user in users:
        length = len(histories.training_items(user))
        if length >= settings.shortest:
            size = min(length, settings.window)
            places.extend((user, start, start + size) for start in range(length - size + 1))
    return places


def draw(histories: Histories, places: Sequence[tuple[int, int, int]], count: int, seed: int) -> list[Window]:
    """`count` windows in random order; all are used before any is repeated with another swap.

    A swap depends only on the seed, the window and how often it was used. The new item is uniform over the items at
    training positions that the user does not have.
    """
    known = np.unique(np.concatenate([histories.training_items(user) for user in range(len(histories))]))
    order = np.random.default_rng(seed)
    windows: list[Window] = []
    turn = 0
    while len(windows) < count:
        for row in order.permutation(len(places))[: count - len(windows)]:
            user, start, end = places[row]
            rng = np.random.default_rng([seed, user, start, turn])
            windows.append(_swapped(histories.training_items(user), known, user, start, end, rng))
        turn += 1
    return windows


def _swapped(history: IntArray, known: IntArray, user: int, start: int, end: int, rng: np.random.Generator) -> Window:
    others = np.setdiff1d(known, history)
    if not len(others):
        raise DataError(f"user number {user} has every item of the catalogue: there is no other item to swap in")
    items = [int(item) for item in history[start:end]]
    position = int(rng.integers(len(items)))
    original, items[position] = items[position], int(rng.choice(others))
    return Window(user, start, tuple(items), position, original)
