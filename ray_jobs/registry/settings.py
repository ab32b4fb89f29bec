"""Settings of the gate before the alias champion; no engine is loaded here."""

from dataclasses import dataclass

from infra.errors import SettingError

SECTION = "promotion"


@dataclass(frozen=True, kw_only=True)
class PromotionSettings:
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

    margin: float = 0.1
    baseline_margin: float = 0.0
    coverage_share: float = 0.2
    slice_share: float = 0.5
    slice_users: int = 100
    steering_margin: float = 0.05
    require_steering: bool = False
    words_margin: float = 0.1
    require_words: bool = True
    latency_ms: float = 0.0
    latency_requests: int = 9
    size_mb: float = 0.0

    def __post_init__(self) -> None:
        for name in ("margin", "baseline_margin", "coverage_share", "slice_share", "steering_margin", "words_margin"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"promotion.{name} is {getattr(self, name)}: a number from 0 to 1 is needed")
        for name in ("slice_users", "latency_requests"):
            if getattr(self, name) < 1:
                raise SettingError(f"promotion.{name} is {getattr(self, name)}: at least 1 is needed")
        for name in ("latency_ms", "size_mb"):
            if getattr(self, name) < 0:
                raise SettingError(f"promotion.{name} is {getattr(self, name)}: 0 (no limit) or more is needed")
