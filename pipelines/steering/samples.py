"""A question of the benchmark, its controls, and how many different answers a set of questions has."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pipelines.steering.histories import History, Split
from schemas.preference_benchmark import CONSOLIDATION, RECOMMENDATION
from schemas.preferences import join_preferences

OVER_LIMIT = "over_max_targets"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A row of the table preference_benchmark before its controls; fields as the columns there."""

    axis: str
    split: Split
    sample_id: str
    history: History
    history_end: int
    target: str
    preference: str
    opposite: str | None = None
    partner: str | None = None
    similarity: float | None = None


def stable_hash(*parts: object) -> int:
    """The same number for the same parts in every process, 0 to 2**64 - 1."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


class Named(Protocol):
    """Something of a split that will be, or is, a sample."""

    @property
    def split(self) -> Split:
        """The split."""
        ...

    @property
    def sample_id(self) -> str:
        """Its name, unique in the axis and split."""
        ...


N = TypeVar("N", bound=Named)


def at_most(found: Iterable[N], most: int, seed: int) -> tuple[list[N], Counter[str]]:
    """At most so many of each split, by the hash of their ids, in the order they came in.

    Returns:
        What is kept, and how many are not, by split and reason.
    """
    by_split: dict[Split, list[N]] = defaultdict(list)
    for one in found:
        by_split[one.split].append(one)
    kept, skipped = [], Counter[str]()
    for split, ones in by_split.items():
        chosen = set(sorted((one.sample_id for one in ones), key=lambda name: (stable_hash(seed, name), name))[:most])
        kept += [one for one in ones if one.sample_id in chosen]
        skipped[f"{split}.{OVER_LIMIT}"] += len(ones) - len(chosen)
    return kept, +skipped


def random_others(samples: Sequence[Sample], seed: int) -> list[Sample | None]:
    """For each sample of one axis and split another one, of another user and with another preference.

    Samples stand on a ring in the order of their hash, and each takes the next one that qualifies.

    Args:
        seed: of the hash.
    """
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
    """Preferences by axis that a model may have met in training.

    Those of the axis's training samples; the two axes without any ask as training examples do, so that for them it is
    what training targets may be given.
    """
    known: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        if sample.split == "train":
            known[sample.axis].add(sample.preference)
    for history in histories:
        for lines in history.known_in_training():
            known[RECOMMENDATION].update(line.text for line in lines)
            known[CONSOLIDATION].add(join_preferences([line.text for line in lines]))
    return known


def benchmark_rows(samples: Sequence[Sample], histories: Iterable[History], seed: int) -> list[dict[str, Any]]:
    """Rows of the table preference_benchmark, its partition column left out.

    Args:
        seed: of the random control.
    """
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
    """Entropy of the labels in nats, and as a share of what equally frequent ones would have (1 for a single one).

    Its exponential is the effective number of labels.
    """
    counts = Counter(labels)
    total = counts.total()
    entropy = -sum(count / total * math.log(count / total) for count in counts.values())
    return abs(entropy), entropy / math.log(len(counts)) if len(counts) > 1 else 1.0
