"""A catalogue of kettles and lamps whose texts name properties, and an encoder that knows a few synonyms."""

import numpy as np

from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.histories import Histories
from ray_jobs.steering.layer import Fit, SteeringLayer
from ray_jobs.steering.terms import build_terms

PROPERTIES = ("quiet", "wooden", "compact", "steel")
SYNONYMS = {"silent": "quiet", "timber": "wooden", "bulky": "compact"}
"""What the encoder takes for the same; like a real one it does not know opposites."""


class WordEncoder:
    """One direction per word, the same for synonyms; a text is the mean of its words."""

    name = "words"
    dim = 64
    max_length = 256

    def __init__(self):
        self.places = {}

    def encode(self, texts):
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in text.lower().split():
                row[self.places.setdefault(SYNONYMS.get(word, word), len(self.places)) % self.dim] += 1
            row /= max(np.linalg.norm(row), 1e-9)
        return vectors

    def to(self, device):
        return self


def having(item):
    """Properties of an item: each pair of the four, in turn."""
    pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
    return {PROPERTIES[p] for p in pairs[item % len(pairs)]}


def told_catalogue(items=36):
    texts = tuple(
        f"Model {chr(65 + item % 26)}{chr(65 + item // 26)}. {' '.join(sorted(having(item)))} kettle."
        for item in range(items)
    )
    codes = np.stack([np.arange(items) % 6, np.arange(items) // 6], axis=1)
    return Catalogue(tuple(f"I{item:02d}" for item in range(items)), texts, texts, codes, (6, -(-items // 6)))


def told_histories(users=40, items=36, seed=0):
    """Random histories: only words can tell what comes next."""
    rng = np.random.default_rng(seed)
    rows = tuple(rng.permutation(items)[:6].astype(np.int64) for _ in range(users))
    ends = np.full(users, 6)
    return Histories(tuple(f"U{user:02d}" for user in range(users)), rows, ends - 2, ends - 1, ({},) * users)


def small_layer(catalogue, weight=2.0, refusal=1.0, own_weight=0.0):
    index = build_terms(catalogue.texts, WordEncoder(), similarity=0.5, most_items=0.9, most_terms=1000)
    return SteeringLayer(index, Fit(weight=weight, refusal=refusal, own_weight=own_weight))
