"""Benchmark samples, their controls, and the entropy of their labels."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.steering.histories import History, Split
from schemas.preference_benchmark import CONSOLIDATION, RECOMMENDATION
from schemas.preferences import join_preferences

OVER_LIMIT = "over_max_targets"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A preference that a sample may get.

    Args:
        text: the preference as generated, whose vector decides.
        preference, opposite: what the model is given when this candidate is chosen.
    """

    text: str
    preference: str
    opposite: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A row of the table preference_benchmark without its controls; fields as the columns there.

    Args:
        sample_id: unique within axis and split.
        preference: empty until one of `candidates` is chosen.
    """

    axis: str
    split: Split
    sample_id: str
    history: History
    history_end: int
    target: str
    candidates: tuple[Candidate, ...] = ()
    preference: str = ""
    opposite: str | None = None
    partner: str | None = None
    similarity: float | None = None


def stable_hash(*parts: object) -> int:
    """A hash of `parts` that is equal in every process, 0 to 2**64 - 1."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def at_most(samples: Iterable[Sample], most: int, seed: int) -> tuple[list[Sample], Counter[str]]:
    """Keep at most `most` samples of each split, chosen by the hash of their ids, in their given order.

    Returns:
        The samples kept, and the number left out, by split and reason.
    """
    by_split: dict[Split, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_split[sample.split].append(sample)
    kept, skipped = [], Counter[str]()
    for split, ones in by_split.items():
        chosen = set(sorted((one.sample_id for one in ones), key=lambda name: (stable_hash(seed, name), name))[:most])
        kept += [one for one in ones if one.sample_id in chosen]
        skipped[f"{split}.{OVER_LIMIT}"] += len(ones) - len(chosen)
    return kept, +skipped


def random_others(samples: Sequence[Sample], seed: int) -> list[Sample | None]:
    """For each sample of one axis and split the next one, in a ring ordered by hash, of another user and preference."""
    ring = sorted(range(len(samples)), key=lambda row: (stable_hash(seed, samples[row].sample_id), row))
    found: list[Sample | None] = [None] * len(samples)
    if len({sample.history.user_id for sample in samples}) < 2 or len({sample.preference for sample in samples}) < 2:
        return found
    for place, row in enumerate(ring):
        own = samples[row]
        others = (samples[ring[(place + step) % len(ring)]] for step in range(1, len(ring)))
        found[row] = next(
            (o for o in others if o.history.user_id != own.history.user_id and o.preference != own.preference), None
        )
    return found


def known_in_training(samples: Iterable[Sample], histories: Iterable[History]) -> dict[str, set[str]]:
    """Preferences by axis that a model may have seen in training.

    These are the preferences of the axis's training samples. Recommendation and consolidation have none: for them they
    are the preferences that training targets may be given.
    """
    known: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        if sample.split == "train":
            known[sample.axis].add(sample.preference)
    for history in histories:
        for preferences in history.known_in_training():
            texts = [preference.text for preference in preferences]
            known[RECOMMENDATION].update(texts)
            known[CONSOLIDATION].add(join_preferences(texts))
    return known


def benchmark_rows(samples: Sequence[Sample], histories: Iterable[History], seed: int) -> list[dict[str, Any]]:
    """Rows of the table preference_benchmark without its partition column; `seed` is that of the random control."""
    known = known_in_training(samples, histories)
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.axis, sample.split].append(sample)
    rows = []
    for group in groups.values():
        for sample, other in zip(group, random_others(group, seed), strict=True):
            before = sample.history.known_before(sample.history_end)
            rows.append(
                {
                    "axis": sample.axis,
                    "split": sample.split,
                    "sample_id": sample.sample_id,
                    "history_user_id": sample.history.user_id,
                    "history_end": sample.history_end,
                    "target_item_id": sample.target,
                    "preference": sample.preference,
                    "opposite": sample.opposite,
                    "latest": before[0].text if before else None,
                    "random": other.preference if other else None,
                    "random_opposite": other.opposite if other else None,
                    "partner_item_id": sample.partner,
                    "similarity": sample.similarity,
                    "seen_in_training": sample.preference in known[sample.axis],
                }
            )
    return rows


def label_entropy(labels: Iterable[str]) -> tuple[float, float]:
    """Entropy of the labels in nats, and as a share of its maximum (1 where there is a single label)."""
    counts = Counter(labels)
    total = counts.total()
    entropy = -sum(count / total * math.log(count / total) for count in counts.values())
    return abs(entropy), entropy / math.log(len(counts)) if len(counts) > 1 else 1.0
