"""Decides which scores mark a position as noise, and with which probability.

Rule ``mixture``: fits two normal distributions to the day's scores. If they separate, a position's keep probability is
that of the higher one; if not, nothing is noise. Rule ``percentile``: the lowest share of all scores is noise, whatever
their values, as in LLM4DSR (arXiv 2408.08208).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as sf
from sklearn.mixture import GaussianMixture

from pipelines.stages.denoised_sequences import PERCENTILE, DenoisedSequencesSettings

DIGITS = 9
"""Digits kept, because the last bits of a mean depend on the order in which Spark adds up."""
LEAST_SEPARATION = 2.0
"""Distance of the two means in standard deviations below which there is one kind (Ashman's D, equal variances)."""
LEAST_GAP = 0.5
"""Distance of the two means in nats per token below which there is one kind."""
MOST_SHARE = 0.5
"""Largest share of the lower kind: if most positions were noise, the others would be the exception."""
FEWEST = 20
"""Scores below which no mixture is fitted."""
MOST_SAMPLED = 200_000
"""Scores, chosen by hash, that the mixture is fitted to."""


@dataclass(frozen=True, kw_only=True)
class TwoKinds:
    """Two kinds of scores of equal variance; ``slope * score + intercept`` is the logit of the higher kind.

    Args:
        share: of the lower kind.
    """

    slope: float
    intercept: float
    share: float


def fit_two_kinds(scores: Sequence[float]) -> TwoKinds | None:
    """Fit two normal distributions of equal variance; None where one explains the scores.

    Two are accepted when the Bayesian information criterion prefers them, their means are far enough apart and the
    lower kind is not the larger one.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64)).reshape(-1, 1)
    center, spread = float(values.mean()), float(values.std())
    if spread < 1e-9:
        return None
    values = (values - center) / spread
    start = np.quantile(values, (0.05, 0.6)).reshape(-1, 1)
    # Without a seed, clusters drawn at random decide where the fit starts, and with it the third digit of its result.
    alike = {"covariance_type": "tied", "reg_covar": 1e-4, "random_state": 0}
    one = GaussianMixture(1, **alike).fit(values)
    two = GaussianMixture(2, means_init=start, max_iter=500, **alike).fit(values)
    low, high = np.argsort(two.means_[:, 0])
    distance = float(two.means_[high, 0] - two.means_[low, 0])
    variance = float(two.covariances_[0, 0])
    near = distance < LEAST_SEPARATION * variance**0.5 or distance * spread < LEAST_GAP
    if near or two.bic(values) >= one.bic(values) or two.weights_[low] > MOST_SHARE:
        return None
    slope = distance / variance
    middle = float(two.means_[high, 0] + two.means_[low, 0]) / 2
    intercept = float(np.log(two.weights_[high] / two.weights_[low])) - slope * middle
    # Back from standardised scores to nats per token.
    return TwoKinds(slope=slope / spread, intercept=intercept - slope * center / spread, share=float(two.weights_[low]))


def mark(scored: DataFrame, chosen: DenoisedSequencesSettings) -> tuple[DataFrame, TwoKinds | None]:
    """Add keep_probability and suspect to positions that have a score.

    Args:
        scored: user_id, position, score and uncertainty (standard error of the score in nats per token; where it is
            null, the position is never suspect by ``mixture``).

    Returns:
        user_id, position, score, uncertainty, keep_probability, suspect; and the two kinds, or None.
    """
    found = scored.where(sf.col("score").isNotNull())
    if chosen.rule == PERCENTILE:
        return _limited(_by_percentile(found, chosen.suspect_share), chosen.max_edits), None
    sample = found.orderBy(sf.xxhash64("user_id", "position")).limit(MOST_SAMPLED).select("score").collect()
    kinds = None if len(sample) < FEWEST else fit_two_kinds([row.score for row in sample])
    if kinds is None:
        keep: Column = sf.lit(1.0)
        candidate: Column = sf.lit(False)
    else:
        keep = _logistic(kinds.slope * sf.col("score") + kinds.intercept)
        at_best = sf.col("score") + chosen.sigmas * sf.col("uncertainty")
        surely = _logistic(kinds.slope * at_best + kinds.intercept) <= 1 - chosen.confidence
        candidate = sf.coalesce(surely, sf.lit(False))
    marked = found.withColumn("keep_probability", sf.round(keep, DIGITS)).withColumn("candidate", candidate)
    return _limited(marked, chosen.max_edits), kinds


def _by_percentile(found: DataFrame, suspect_share: float) -> DataFrame:
    """The keep probability is the logistic of the standardised score, 0.5 where all scores are equal."""
    row = found.agg(
        sf.mean("score").alias("mean"),
        sf.stddev_pop("score").alias("spread"),
        sf.percentile("score", sf.lit(suspect_share)).alias("threshold"),
    ).first()
    assert row is not None
    keep = _logistic((sf.col("score") - sf.lit(row["mean"])) / sf.lit(row.spread or 1.0))
    return found.withColumn("keep_probability", sf.round(keep, DIGITS)).withColumn(
        "candidate", sf.col("score") < sf.lit(row.threshold)
    )


def _limited(marked: DataFrame, max_edits: int) -> DataFrame:
    rank = sf.row_number().over(Window.partitionBy("user_id").orderBy("score", "position"))
    within = rank <= max_edits if max_edits else sf.lit(True)
    return marked.select(
        "user_id",
        "position",
        "score",
        "uncertainty",
        "keep_probability",
        (sf.col("candidate") & within).alias("suspect"),
    )


def _logistic(logit: Column) -> Column:
    return 1 / (1 + sf.exp(-logit))
