"""The steering layer: what a sentence adds to the log-probability of every item.

The bonus of a sentence is the sum of its wishes' match scores minus that of its refusals', standardised over the
catalogue, times a weight in nats. Added to the log-probabilities of a recipe this is a product of two experts, one that
knows the user and one that knows the words. The weights of wishes and refusals are fitted on the validation split
(`ray_jobs.steering.fitting`). A sentence that matches nothing in the catalogue adds nothing.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from infra.state import named, read_json, write_json
from ray_jobs.steering.remembered import Remembered
from ray_jobs.steering.sentences import read_sentence
from ray_jobs.steering.terms import FILE as TERMS_FILE
from ray_jobs.steering.terms import FloatArray, TermIndex

FILE = "steering.json"
RETRAIN = "train the model again (--generation)"
"""How to mend a damaged file of a bundle."""
_KEPT_SENTENCES = 64
OPPOSED = 0.5
"""Penalty of an item that means the opposite of a wish; the best match scores 1."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How strongly words count.

    Args:
        weight: of a request's sentence, in nats per standard deviation.
        refusal: weight of a refusal relative to a wish.
        own_weight: of the user's known preferences if a request has no sentence; 0 if they did not help.
        reads: the recipe reads the sentence, too, because that was better on validation than the layer alone.
        measured: metrics of the fit by name.
    """

    weight: float
    refusal: float
    own_weight: float = 0.0
    reads: bool = False
    measured: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Matched:
    """A parsed and matched sentence.

    Args:
        wanted, refused: phrases that match something.
        unmatched: phrases that match nothing in the catalogue.
        scores: float32[N], standardised over the catalogue; None if nothing matched.
    """

    wanted: tuple[str, ...]
    refused: tuple[str, ...]
    unmatched: tuple[str, ...]
    scores: FloatArray | None = field(repr=False)


class SteeringLayer:
    """Terms of a catalogue and a fit."""

    def __init__(self, terms: TermIndex, fit: Fit) -> None:
        self.terms, self.fit = terms, fit
        self.match = Remembered(self._match, _KEPT_SENTENCES)

    def with_fit(self, fit: Fit) -> "SteeringLayer":
        """The same terms under another fit."""
        return SteeringLayer(self.terms, fit)

    def _match(self, sentence: str) -> Matched:
        """Parse a sentence and match its phrases; `match` caches it."""
        wishes = read_sentence(sentence)
        self.terms.encode([*wishes.wanted, *wishes.refused])
        total = np.zeros(self.terms.size, dtype=np.float32)
        matched: dict[str, bool] = {}
        for phrases, sign in ((wishes.wanted, 1.0), (wishes.refused, -self.fit.refusal)):
            for phrase in phrases:
                match = self.terms.match(phrase)
                matched[phrase] = bool(match)
                total[match.items] += np.float32(sign) * match.scores
                total[match.opposed] -= np.float32(sign * OPPOSED)
        spread = float(total.std())
        return Matched(
            tuple(phrase for phrase in wishes.wanted if matched[phrase]),
            tuple(phrase for phrase in wishes.refused if matched[phrase]),
            tuple(phrase for phrase in (*wishes.wanted, *wishes.refused) if not matched[phrase]),
            (total - total.mean()) / spread if spread > 0 else None,
        )

    def is_read(self, sentence: str) -> bool:
        """Whether the sentence is also given to a recipe that reads preferences."""
        return bool(self.fit.reads and sentence and self.match(sentence).scores is not None)

    def bonus(self, sentences: Sequence[str], strength: Tensor | None = None) -> Tensor | None:
        """What each sentence adds to the log-probability of each item.

        Args:
            strength: float[B], factor on the fitted weight; None for 1.

        Returns:
            float32[B, N]; None if no sentence adds anything.
        """
        matched = [self.match(sentence) if sentence else None for sentence in sentences]
        factors = [1.0] * len(matched) if strength is None else strength.tolist()
        if not any(one is not None and one.scores is not None and f for one, f in zip(matched, factors, strict=True)):
            return None
        rows = np.zeros((len(matched), self.terms.size), dtype=np.float32)
        for row, one, factor in zip(rows, matched, factors, strict=True):
            if one is not None and one.scores is not None:
                row += np.float32(self.fit.weight * factor) * one.scores
        return torch.from_numpy(rows)

    def because(self, sentence: str, item: int) -> tuple[str, ...]:
        """Words of the item's text that match a wish, or the opposite of a refusal."""
        matched = self.match(sentence)
        return self._words(item, matched.wanted, matched.refused)

    def against(self, sentence: str, item: int) -> tuple[str, ...]:
        """Words of the item's text that match a refusal, or the opposite of a wish."""
        matched = self.match(sentence)
        return self._words(item, matched.refused, matched.wanted)

    def _words(self, item: int, meant: Sequence[str], opposite: Sequence[str]) -> tuple[str, ...]:
        found = [self.terms.because(phrase, item) for phrase in meant]
        found += [self.terms.although(phrase, item) for phrase in opposite]
        return tuple(dict.fromkeys(word for word in found if word is not None))

    def save(self, folder: Path) -> None:
        """Write the layer to a bundle's folder."""
        self.terms.save(folder)
        write_json(folder / FILE, asdict(self.fit), sort_keys=True)

    @classmethod
    def load(cls, folder: Path) -> "SteeringLayer | None":
        """The layer of a bundle, or None."""
        if not (folder / FILE).exists():
            return None
        fit = read_json(folder / FILE, RETRAIN, lambda raw: Fit(**raw))
        with named(folder / TERMS_FILE, RETRAIN):
            return cls(TermIndex.load(folder), fit)
