"""Settings of the gate before the alias champion; no engine is loaded here."""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, Count, NonNegative, Share

SECTION = "promotion"


@dataclass(frozen=True, kw_only=True)
class PromotionSettings(Bounded):
    """Settings of the gate, section ``promotion``.

    Args:
        margin: share of the champion's NDCG@10 that the lower end of the 95 % interval of the paired difference may
            lie below zero, over all users and over those from the champion's day; 0 asks for a challenger that is
            better beyond doubt.
        baseline_margin: share of the NDCG@10 of the run's baseline that the recommender's may lie below it, by the
            means that the pages show; beyond, the baseline is registered instead. 0: the better number wins.
        coverage_share: share of the champion's coverage of the catalogue that may be lost.
        slice_share: share of the champion's NDCG@10 that must be kept in every group of users.
        slice_users: groups of fewer users are not looked at.
        steering_margin: what may be lost of the mean lift by the preference, in units of the axes' metrics.
        require_steering: leave a challenger waiting until the steerability of both was measured for its day.
        words_margin: what may be lost of how far words move the lists: the share of wishes that at least double their
            word's share of ten, less that under another wish.
        require_words: leave a challenger waiting that words move less than the champion, or while nobody measured it;
            false only reports it.
        latency_ms: most milliseconds of one request, the median; 0 only reports them.
        latency_requests: requests that are timed.
        size_mb: largest bundle in megabytes; 0 only reports it.
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
