"""Which preference a training example is given, for the recipes that read preferences.

The one that fits the target best among those known then (an oracle, in training only), all known ones as at evaluation,
or none, in shares given by settings; each example's draw is fixed by the seed, so that what a frozen encoder says of
the texts stays the same over all epochs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infra.errors import SettingError
from ray_jobs.data.histories import Examples, Histories
from ray_jobs.encoders.text import PACKAGED, TextEncoder
from ray_jobs.recommenders.generative import GenerativeSettings
from schemas.preferences import join_preferences


@dataclass(frozen=True, kw_only=True)
class ConditionedSettings(GenerativeSettings):
    """Settings of recipes that read preferences.

    Args:
        encoder: name for `ray_jobs.encoders.text.load_text_encoder`.
        preference_dropout: share of training examples that are given no preference.
        matched_share: of the others, share that is given the single best-fitting preference; the rest get all.
    """

    encoder: str = PACKAGED
    preference_dropout: float = 0.3
    matched_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("preference_dropout", "matched_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"{name} is {getattr(self, name)}: a share from 0 to 1")


def conditioned(
    examples: Examples, histories: Histories, settings: ConditionedSettings, encoder: TextEncoder, titles: Sequence[str]
) -> Examples:
    """`examples` of training positions with the preference that the settings' shares and the seed give each."""
    draws = np.random.default_rng(settings.seed).random((len(examples), 2))
    known = [
        histories.latest_preferences(int(user), int(position))
        for user, position in zip(examples.users, examples.positions, strict=True)
    ]
    given = draws[:, 0] >= settings.preference_dropout
    matched = [row for row in np.flatnonzero(given & (draws[:, 1] < settings.matched_share)) if len(known[row]) > 1]
    best = _matched([known[row] for row in matched], [titles[int(examples.targets[row])] for row in matched], encoder)
    chosen = [join_preferences(known[row]) if given[row] else "" for row in range(len(examples))]
    for row, preference in zip(matched, best, strict=True):
        chosen[row] = preference
    return examples.with_preferences(chosen)


def _matched(candidates: Sequence[Sequence[str]], titles: Sequence[str], encoder: TextEncoder) -> list[str]:
    """Of each example's candidates the one nearest to the target's title by cosine; the first of equals."""
    sentences = sorted({sentence for row in candidates for sentence in row} | set(titles))
    vector = dict(zip(sentences, encoder.encode(sentences), strict=True))
    return [
        row[int(np.argmax([vector[sentence] @ vector[title] for sentence in row]))]
        for row, title in zip(candidates, titles, strict=True)
    ]
