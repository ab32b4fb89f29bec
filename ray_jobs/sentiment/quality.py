"""Agreement of sentiment scores with stars."""

import numpy as np
import numpy.typing as npt
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

LEAST_POSITIVE, MOST_NEGATIVE = 4.0, 2.0
THRESHOLD = 0.5


def rated(stars: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Reviews whose stars are clearly positive or negative, bool[N]."""
    return (stars >= LEAST_POSITIVE) | (stars <= MOST_NEGATIVE)


def agreement(scores: npt.NDArray[np.floating], stars: npt.NDArray[np.floating]) -> dict[str, float]:
    """Agreement on the reviews that `rated` selects.

    Args:
        scores: float[N], probability of positive.
        stars: float[N].

    Returns:
        rated (their number), accuracy and, for comparison, majority_share (of the larger class); balanced_accuracy,
        auc, negative_precision and negative_recall. Undefined measures are left out.
    """
    chosen = rated(stars)
    truth, score = stars[chosen] >= LEAST_POSITIVE, scores[chosen]
    judged = score >= THRESHOLD
    found = {"rated": float(chosen.sum())}
    if len(truth) == 0:
        return found
    positive = float(truth.mean())
    found |= {"accuracy": float((judged == truth).mean()), "majority_share": max(positive, 1 - positive)}
    if 0 < positive < 1:
        found["balanced_accuracy"] = float(balanced_accuracy_score(truth, judged))
        found["auc"] = float(roc_auc_score(truth, score))
        found["negative_recall"] = float((~judged[~truth]).mean())
        if not judged.all():
            found["negative_precision"] = float((~truth[~judged]).mean())
    return found
