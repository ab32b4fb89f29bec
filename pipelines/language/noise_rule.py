"""When a score counts as noise: the two rules and their settings; `pipelines.language.noise` applies them."""

from dataclasses import dataclass

MIXTURE, PERCENTILE = "mixture", "percentile"
RULES = (MIXTURE, PERCENTILE)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When a position is suspect.

    Args:
        kind: one of `RULES`.
        suspect_share: for ``percentile``: positions whose score is below this quantile are candidates.
        confidence: for ``mixture``: a candidate is noise with at least this probability,
        sigmas: even when its score were so many standard errors higher.
        least_separation: for ``mixture``: distance of the two kinds' means in standard deviations below which they are
            one kind (Ashman's D of a mixture with equal variances),
        least_gap: and so they are when the means lie fewer nats per token apart: shades of belonging, not noise.
        most_share: a lower kind with a larger share is no noise: the higher kind is then the odd one, titles that are
            nearly the same.
        fewest: for ``mixture``: with fewer scores nothing is decided.
        most_sampled: for ``mixture``: scores that the mixture is fitted to, chosen by hash.
        max_edits: candidates per history that are marked suspect, lowest score first; 0 for no limit.
    """

    kind: str = MIXTURE
    suspect_share: float = 0.1
    confidence: float = 0.8
    sigmas: float = 1.0
    least_separation: float = 2.0
    least_gap: float = 0.5
    most_share: float = 0.5
    fewest: int = 20
    most_sampled: int = 200_000
    max_edits: int = 2
