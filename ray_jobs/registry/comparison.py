"""Compare a model with one that was trained again in the same way: losses, metrics, weights and recommendations."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import torch

from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.registry.users import User, user_columns

LISTED = 10
"""Length of the compared lists of recommendations."""
_NOT_COMPARED = {"seconds", "epoch"}


class Verdict(StrEnum):
    """How close two numbers, tensors or lists are."""

    EQUAL = "equal"
    WITHIN = "within tolerance"
    DIFFERS = "differs"
    UNRECORDED = "not recorded"


@dataclass(frozen=True)
class Compared:
    """One line of a comparison.

    Args:
        before, after: of the version and of its reproduction, for people.
        difference: largest absolute difference; None if there is no number.
    """

    what: str
    before: str
    after: str
    difference: float | None
    verdict: Verdict

    @classmethod
    def by_difference(cls, what: str, shown: Sequence[str], difference: float, tolerance: float = 0.0) -> "Compared":
        """A line whose verdict follows from the difference; `shown` is before and after."""
        before, after = shown
        within = Verdict.WITHIN if difference <= tolerance else Verdict.DIFFERS
        return cls(what, before, after, difference, Verdict.EQUAL if difference == 0 else within)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All lines of a comparison."""

    lines: tuple[Compared, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the lines; unrecorded numbers do not count."""
        found = {line.verdict for line in self.lines}
        return next((v for v in (Verdict.DIFFERS, Verdict.WITHIN) if v in found), Verdict.EQUAL)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {"verdict": self.verdict.value, "lines": [asdict(line) for line in self.lines]}

    def table(self) -> str:
        """The lines as a Markdown table with aligned columns."""
        rows: list[Sequence[str]] = [("", "version", "reproduction", "difference", "verdict")]
        for one in self.lines:
            gap = "" if one.difference is None else f"{one.difference:.3g}"
            rows.append((one.what, one.before, one.after, gap, one.verdict))
        widths = [max(3, *map(len, cells)) for cells in zip(*rows, strict=True)]
        rows.insert(1, ["-" * width for width in widths])
        lines = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(f"| {line} |" for line in lines)


def _largest(pairs: Iterable[tuple[float, float]]) -> float:
    """Largest absolute difference, infinite for NaN; equal representations (NaN and NaN) do not differ."""
    gaps = [0.0 if repr(a) == repr(b) else abs(a - b) for a, b in pairs]
    return max((float("inf") if gap != gap else gap for gap in gaps), default=0.0)


def compare_curves(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], tolerance: float
) -> list[Compared]:
    """Compare the final loss, and every number of every epoch except its time.

    Args:
        before, after: the bundles' records, one per epoch; empty for a recipe without training.
    """
    if not before and not after:
        return []
    if len(before) != len(after):
        counts = (f"{len(before)} epochs", f"{len(after)} epochs")
        return [Compared.by_difference("epochs", counts, float(abs(len(before) - len(after))))]
    last = (before[-1]["loss"], after[-1]["loss"])
    lines = [Compared.by_difference("final loss", [f"{loss:.6f}" for loss in last], _largest([last]), tolerance)]
    numbers = {n for record in (*before, *after) for n, value in record.items() if isinstance(value, int | float)}
    shown = f"{len(before)} epochs"
    for name in sorted(numbers - _NOT_COMPARED):
        pairs = [(float(a.get(name, "nan")), float(b.get(name, "nan"))) for a, b in zip(before, after, strict=True)]
        lines.append(Compared.by_difference(f"{name}, epoch by epoch", (shown, shown), _largest(pairs), tolerance))
    return lines


def compare_metrics(before: Mapping[str, float], after: Mapping[str, float], tolerance: float) -> list[Compared]:
    """Compare every metric of `after` with the recorded one of that name."""
    lines = []
    for name, value in sorted(after.items()):
        if name in before:
            gap = _largest([(before[name], value)])
            lines.append(Compared.by_difference(name, (f"{before[name]:.6f}", f"{value:.6f}"), gap, tolerance))
        else:
            lines.append(Compared(name, "", f"{value:.6f}", None, Verdict.UNRECORDED))
    return lines


def compare_weights(before: Bundle, after: Bundle, tolerance: float) -> Compared:
    """Compare all trained tensors, as one line."""
    states = [bundle.recommender.trained_state() for bundle in (before, after)]
    shown = [f"{sum(t.numel() for t in state.values()):,} in {len(state)} tensors" for state in states]
    old, new = states
    if {name: t.shape for name, t in old.items()} != {name: t.shape for name, t in new.items()}:
        return Compared.by_difference("weights", shown, float("inf"))
    gap = 0.0
    for name, tensor in old.items():
        if not torch.equal(tensor, new[name]):
            found = (tensor.double() - new[name].double()).abs().max().item()
            gap = max(gap, float("inf") if found != found else found)
    return Compared.by_difference("weights", shown, gap, tolerance)


def compare_lists(before: Bundle, after: Bundle, users: Sequence[User], tolerance: float) -> list[Compared]:
    """Compare the recommended items for `users`, and the scores of the lists with the same items."""
    lists = [
        bundle.recommend([user.history for user in users], [None] * len(users), LISTED, **user_columns(users))
        for bundle in (before, after)
    ]
    pairs = list(zip(*lists, strict=True))
    same = [(a, b) for a, b in pairs if [item for item, _ in a] == [item for item, _ in b]]
    shown = f"{len(pairs)} lists of {LISTED}"
    other = len(pairs) - len(same)
    lines = [Compared.by_difference("recommendations", (shown, f"{len(same)} the same"), other)]
    if same:
        gap = _largest((x, y) for a, b in same for (_, x), (_, y) in zip(a, b, strict=True))
        counts = [f"{len(same)} lists"] * 2
        lines.append(Compared.by_difference("scores of the same lists", counts, gap, tolerance))
    return lines
