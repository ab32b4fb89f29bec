"""Sentiment by a linear probe on frozen text vectors, trained on stars and cross-fitted over users."""

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
    """The fold of a user, by hash, so that new users do not move others."""
    return int(hashlib.sha256(f"{seed}/{user}".encode()).hexdigest()[:15], 16) % folds


def cross_fitted(
    vectors: npt.NDArray[np.float32],
    stars: npt.NDArray[np.floating],
    users: Sequence[str],
    own: ReviewSentimentsSettings,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """Probability of positive for each review, float64[N], by a probe that was trained without that user's reviews.

    The probe is an L2-regularised logistic regression with balanced class weights, so that 0.5 separates the classes
    whatever their shares. It is trained on reviews with at least 4 or at most 2 stars.

    Args:
        vectors: float32[N, D], one per review.
        stars: float[N].
        users: authors of the N reviews.
        progress: called with (probes fitted, number of probes).

    Raises:
        DataError: a probe has too few training reviews of a class.
    """
    fold = np.array([fold_of(user, own.folds, own.seed) for user in users])
    labelled, positive = rated(stars), stars >= LEAST_POSITIVE
    scores = np.zeros(len(stars))
    folds = np.unique(fold).tolist()
    for done, held_out in enumerate(folds):
        training = labelled & (fold != held_out)
        _require_both(int(positive[training].sum()), int((~positive[training]).sum()), stars, own)
        probe = LogisticRegression(
            C=own.inverse_penalty, class_weight="balanced", solver="newton-cholesky", max_iter=_STEPS
        ).fit(vectors[training], positive[training])
        scores[fold == held_out] = probe.predict_proba(vectors[fold == held_out])[:, 1]
        if progress:
            progress(done + 1, len(folds))
    return scores


def _require_both(positive: int, negative: int, stars: npt.NDArray[np.floating], own: ReviewSentimentsSettings) -> None:
    if min(positive, negative) < _FEWEST:
        raise DataError(
            f"{STAGE}.classifier={PROBE!r} learns from at least {_FEWEST} positive and {_FEWEST} negative reviews by "
            f"users outside each of its {own.folds} parts; outside one part there are {positive} and {negative}. Of "
            f"{len(stars)} reviews {int((stars >= LEAST_POSITIVE).sum())} have {LEAST_POSITIVE:.0f} stars or more and "
            f"{int((stars <= MOST_NEGATIVE).sum())} have {MOST_NEGATIVE:.0f} or fewer. Land more reviews, or {NO_STARS}"
        )
