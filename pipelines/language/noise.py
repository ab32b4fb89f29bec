"""Which scores are low enough to call a position noise, and how sure that is.

Two rules. ``mixture``: scores come from two kinds of positions, those that belong and those that do not; when the day's
scores show two kinds, a position's keep probability is the chance that it is of the higher kind. When they do not,
nothing is noise: a world without noise gets no edits. ``percentile``: the lowest share of all scores, as in LLM4DSR
(arXiv 2408.08208), however good they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as sf
from sklearn.mixture import GaussianMixture

from pipelines.language.noise_rule import PERCENTILE, Rule

# The last bits of a mean over the partition depend on the order in which Spark adds it up; a rerun must not show them.
DIGITS = 9


@dataclass(frozen=True, kw_only=True)
class TwoKinds:
    """Two kinds of scores with one variance: logit of being of the higher kind is ``slope * score + intercept``."""

    slope: float
    intercept: float
    share: float


def fit_two_kinds(scores: Sequence[float], rule: Rule) -> TwoKinds | None:
    """Fit a mixture of two normal distributions with equal variances; None where one kind explains the scores.

    Two kinds are told apart when the Bayesian information criterion prefers them and their means lie far enough apart
    by ``rule.least_separation`` and ``rule.least_gap``; the lower kind must be the smaller one (``rule.most_share``).
    """
    values = np.sort(np.asarray(scores, dtype=np.float64)).reshape(-1, 1)
    center, spread = float(values.mean()), float(values.std())
    if spread < 1e-9:
        return None
    values = (values - center) / spread
    start = np.quantile(values, (0.05, 0.6)).reshape(-1, 1)
    one = GaussianMixture(1, covariance_type="tied", reg_covar=1e-4).fit(values)
    two = GaussianMixture(2, covariance_type="tied", reg_covar=1e-4, means_init=start, max_iter=500).fit(values)
    low, high = np.argsort(two.means_[:, 0])
    distance = float(two.means_[high, 0] - two.means_[low, 0])
    variance = float(two.covariances_[0, 0])
    near = distance < rule.least_separation * variance**0.5 or distance * spread < rule.least_gap
    if near or two.bic(values) >= one.bic(values) or two.weights_[low] > rule.most_share:
        return None
    slope = distance / variance
    middle = float(two.means_[high, 0] + two.means_[low, 0]) / 2
    intercept = float(np.log(two.weights_[high] / two.weights_[low])) - slope * middle
    # Back from standardised scores to nats per token.
    return TwoKinds(slope=slope / spread, intercept=intercept - slope * center / spread, share=float(two.weights_[low]))


def mark(scored: DataFrame, rule: Rule) -> tuple[DataFrame, TwoKinds | None]:
    """Add keep_probability and suspect to positions that have a score.

    Args:
        scored: user_id, position, score and uncertainty (standard error of the score, nats per token; a position where
            it is null is never suspect by ``mixture``).

    Returns:
        user_id, position, score, uncertainty, keep_probability, suspect; and the two kinds where there are two.
    """
    found = scored.where(sf.col("score").isNotNull())
    if rule.kind == PERCENTILE:
        return _limited(_by_percentile(found, rule), rule), None
    sample = found.orderBy(sf.xxhash64("user_id", "position")).limit(rule.most_sampled).select("score").collect()
    kinds = None if len(sample) < rule.fewest else fit_two_kinds([row.score for row in sample], rule)
    if kinds is None:
        keep: Column = sf.lit(1.0)
        candidate: Column = sf.lit(False)
    else:
        keep = _logistic(kinds.slope * sf.col("score") + kinds.intercept)
        at_best = sf.col("score") + rule.sigmas * sf.col("uncertainty")
        surely = _logistic(kinds.slope * at_best + kinds.intercept) <= 1 - rule.confidence
        candidate = sf.coalesce(surely, sf.lit(False))
    marked = found.withColumn("keep_probability", sf.round(keep, DIGITS)).withColumn("candidate", candidate)
    return _limited(marked, rule), kinds


def _by_percentile(found: DataFrame, rule: Rule) -> DataFrame:
    """Logistic of the standardised score (population standard deviation), one half where all scores are equal."""
    row = found.agg(
        sf.mean("score").alias("mean"),
        sf.stddev_pop("score").alias("spread"),
        sf.percentile("score", sf.lit(rule.suspect_share)).alias("threshold"),
    ).first()
    assert row is not None
    keep = _logistic((sf.col("score") - sf.lit(row["mean"])) / sf.lit(row.spread or 1.0))
    return found.withColumn("keep_probability", sf.round(keep, DIGITS)).withColumn(
        "candidate", sf.col("score") < sf.lit(row.threshold)
    )


def _limited(marked: DataFrame, rule: Rule) -> DataFrame:
    rank = sf.row_number().over(Window.partitionBy("user_id").orderBy("score", "position"))
    within = rank <= rule.max_edits if rule.max_edits else sf.lit(True)
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
