"""Hand-made histories whose items and preferences are angles on a circle, so that who is near whom can be seen."""

import math

import numpy as np

from pipelines.language.merging import Preference
from pipelines.steering.histories import History
from pipelines.steering.vectors import Vectors


def line(text, evidence=()):
    return Preference(
        text=text, sentiment="like" if text.startswith("Prefers") else "dislike", evidence=tuple(evidence)
    )


def history(user, items, lines=None, split=True):
    """A history of one-letter items with leave-one-out targets and lines by position."""
    return History(
        user_id=user,
        items=tuple(items),
        valid=len(items) - 2 if split else None,
        test=len(items) - 1 if split else None,
        preferences={
            p: tuple(one if isinstance(one, Preference) else line(one) for one in ls) for p, ls in (lines or {}).items()
        },
    )


def angle(degrees):
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def on_circle(**degrees):
    """Vectors by name; lines are named by what they prefer."""
    return Vectors(list(degrees), np.array([angle(d) for d in degrees.values()], dtype=np.float32).reshape(-1, 2))


def lines_on_circle(**degrees):
    return Vectors(
        [f"Prefers {name}" for name in degrees],
        np.array([angle(d) for d in degrees.values()], dtype=np.float32).reshape(-1, 2),
    )
