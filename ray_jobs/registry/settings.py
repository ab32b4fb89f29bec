"""Settings of the promotion gate; no engine is loaded here."""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, Count, NonNegative, Share

SECTION = "promotion"


@dataclass(frozen=True, kw_only=True)
class PromotionSettings(Bounded):
    """Settings of the promotion gate, section ``promotion``.

    Args:
        margin: how far the lower end of the 95 % interval of the paired difference to the champion may be below zero,
            as a share of the champion's NDCG@10; over all users and over those from the champion's day. 0 requires a
            significantly better challenger.
        baseline_margin: how far the recommender's mean NDCG@10 may be below that of the run's baseline, as a share of
            it; beyond, the baseline is registered instead. 0: the better mean wins.
        coverage_share: share of the champion's coverage of the catalogue that may be lost.
        slice_share: share of the champion's NDCG@10 that must be kept in every group of users.
        slice_users: smaller groups of users are ignored.
        steering_margin: tolerated loss of the mean lift by the preference, in units of the axes' metrics.
        require_steering: a challenger waits until the steerability of both was measured for its day.
        words_margin: tolerated loss of how far words move the lists: the share of wishes that at least double their
            word's share of the first ten, minus that share under another wish.
        require_words: a challenger waits if words move its lists less than the champion's, or if this was not measured;
            false only reports it.
        latency_ms: largest median of milliseconds per request; 0 only reports it.
        latency_requests: number of timed requests.
        size_mb: largest size of the bundle in megabytes; 0 only reports it.
    """

    section: ClassVar[str] = SECTION

    margin: Share = 0.1
    baseline_margin: Share = 0.0
    coverage_share: Share = 0.2
    slice_share: Share = 0.5
    slice_users: Count = 100
    steering_margin: Share = 0.05
    require_steering: bool = False
    words_margin: Share = 0.1
    require_words: bool = True
    latency_ms: NonNegative = 0.0
    latency_requests: Count = 9
    size_mb: NonNegative = 0.0
