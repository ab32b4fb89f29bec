"""How well planted noise is detected, and how good the corrections are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from pipelines.landing.planted_world.truth import TruePosition, Truth
from pipelines.recovery.histories import History
from pipelines.recovery.opinions import share

_RESAMPLES = 200
_DETECTION = (
    "auc", "auc_error", "average_precision", "average_precision_error", "precision_at_edits", "recall_at_edits",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A position that the denoiser scored (low is noise), with its suggestion."""

    user_id: str
    position: int
    true: TruePosition
    score: float
    keep: float
    suspect: bool
    replacement: str | None


def scored_positions(rows: Iterable[Mapping[str, Any]], histories: Mapping[str, History]) -> list[Scored]:
    """The positions with a score, by user and position."""
    return [
        Scored(
            user_id=row["user_id"],
            position=position,
            true=histories[row["user_id"]].truth[position],
            score=score,
            keep=row["keep_probability"][position],
            suspect=row["suspect"][position],
            replacement=row["replacements"][position],
        )
        for row in sorted(rows, key=lambda row: row["user_id"])
        for position, score in enumerate(row["scores"])
        if score is not None
    ]


def detection(positions: Sequence[Scored], scores: Sequence[float], edits: int) -> dict[str, float | None]:
    """Area under the ROC curve and average precision of low scores as a sign of noise, with their standard errors.

    The errors come from a bootstrap over users, whose positions belong together. ``precision_at_edits`` and
    ``recall_at_edits`` are those of the `edits` lowest scores, to compare methods at the stage's own number of edits.
    All are None where there is no noise, or nothing else.
    """
    noise = np.array([p.true.is_noise for p in positions], dtype=bool)
    doubt = -np.array(scores, dtype=float)
    if noise.all() or not noise.any():
        return dict.fromkeys(_DETECTION)
    users = np.unique([p.user_id for p in positions], return_inverse=True)[1]
    members = [np.flatnonzero(users == user) for user in range(users.max() + 1)]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(_RESAMPLES):
        index = np.concatenate([members[user] for user in rng.integers(len(members), size=len(members))])
        if 0 < noise[index].sum() < len(index):
            drawn.append([measure(noise[index], doubt[index]) for measure in (roc_auc_score, average_precision_score)])
    errors = np.std(drawn, axis=0)
    hits = int(noise[np.argsort(-doubt, kind="stable")[:edits]].sum())
    values = (
        float(roc_auc_score(noise, doubt)),
        float(errors[0]),
        float(average_precision_score(noise, doubt)),
        float(errors[1]),
        share(hits, edits),
        share(hits, int(noise.sum())),
    )
    return dict(zip(_DETECTION, values, strict=True))


def corrections(positions: Sequence[Scored], truth: Truth) -> dict[str, float | None]:
    """What the denoiser would change: suspect positions with a replacement.

    Returns:
        Shares from 0 to 1: ``precision`` and ``recall`` against planted noise among scored positions;
        ``suits_taste``, ``right_category`` of replacements, by the taste planted at the position; ``meant`` (the very
        item) of edits of noise; ``noise`` among scored positions and ``doubt``, the mean
        of 1 - keep_probability, which equals it where keep_probability is calibrated. Besides ``edits_per_100``.
    """
    edits = [(p, p.replacement) for p in positions if p.suspect and p.replacement is not None]
    right = [(p, item) for p, item in edits if p.true.is_noise]
    noise = sum(p.true.is_noise for p in positions)
    size = len(positions)
    return {
        "scored": size,
        "noise": share(noise, size),
        "doubt": share(sum(1 - p.keep for p in positions), size),
        "suspects": sum(p.suspect for p in positions),
        "edits": len(edits),
        "edits_per_100": share(100 * len(edits), size),
        "precision": share(len(right), len(edits)),
        "recall": share(len(right), noise),
        "suits_taste": share(sum(truth.match(p.true.taste, item) > 0 for p, item in edits), len(edits)),
        "right_category": share(
            sum(truth.items[item].category in p.true.taste.categories for p, item in edits), len(edits)
        ),
        "meant": share(sum(p.true.meant == item for p, item in right), len(right)),
    }
