"""A linear probe on frozen text vectors, trained on stars and cross-fitted over users."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from ray_jobs.sentiment.quality import LEAST_POSITIVE, MOST_NEGATIVE, rated
from ray_jobs.sentiment.settings import NO_STARS, PROBE, STAGE, ReviewSentimentsSettings
from schemas.errors import DataError

_FEWEST = 10
_STEPS = 200


def fold_of(user: str, folds: int, seed: int) -> int:
    """The part that a user belongs to: by a hash, so that tomorrow's users change nothing for today's."""
    return int(hashlib.sha256(f"{seed}/{user}".encode()).hexdigest()[:15], 16) % folds


def cross_fitted(
    vectors: npt.NDArray[np.float32],
    stars: npt.NDArray[np.floating],
    users: Sequence[str],
    own: ReviewSentimentsSettings,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """Probability of positive for each review, by a probe that has seen no review of the same user.

    The probe is an L2-regularised logistic regression with both classes of equal weight, so that 0.5 divides them
    whatever their shares. It learns from reviews of at least 4 and at most 2 stars; those between are judged only.

    Args:
        vectors: one per review: float32[N, D].
        stars: float[N].
        users: who wrote it, N of them.
        progress: told how many of how many probes are fitted.

    Returns:
        float64[N].

    Raises:
        DataError: a probe would see too few reviews of a class.
    """
    part = np.array([fold_of(user, own.folds, own.seed) for user in users])
    learnt, positive = rated(stars), stars >= LEAST_POSITIVE
    scores = np.zeros(len(stars))
    parts = np.unique(part).tolist()
    for done, each in enumerate(parts):
        training = learnt & (part != each)
        _require_both(int(positive[training].sum()), int((~positive[training]).sum()), stars, own)
        probe = LogisticRegression(
            C=own.inverse_penalty, class_weight="balanced", solver="newton-cholesky", max_iter=_STEPS
        ).fit(vectors[training], positive[training])
        scores[part == each] = probe.predict_proba(vectors[part == each])[:, 1]
        if progress:
            progress(done + 1, len(parts))
    return scores


def _require_both(positive: int, negative: int, stars: npt.NDArray[np.floating], own: ReviewSentimentsSettings) -> None:
    if min(positive, negative) < _FEWEST:
        raise DataError(
            f"{STAGE}.classifier={PROBE!r} learns from at least {_FEWEST} positive and {_FEWEST} negative reviews by "
            f"users outside each of its {own.folds} parts; outside one part there are {positive} and {negative}. Of "
            f"{len(stars)} reviews {int((stars >= LEAST_POSITIVE).sum())} have {LEAST_POSITIVE:.0f} stars or more and "
            f"{int((stars <= MOST_NEGATIVE).sum())} have {MOST_NEGATIVE:.0f} or fewer. Land more reviews, or {NO_STARS}"
        )
