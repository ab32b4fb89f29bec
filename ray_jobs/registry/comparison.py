"""A model beside one that was trained again in the same way: losses, metrics, weights and recommendations."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import torch

from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.registry.users import User, user_columns

LISTED = 10
"""Items of a list of recommendations that is compared."""
_APART = {"seconds", "epoch"}


class Verdict(StrEnum):
    """How near two numbers, tensors or lists are."""

    EQUAL = "equal"
    WITHIN = "within tolerance"
    DIFFERS = "differs"
    UNRECORDED = "not recorded"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One line of a comparison.

    Args:
        before, after: of the version and of the reproduction, for people.
        difference: largest absolute difference; None where there is no number.
    """

    what: str
    before: str
    after: str
    difference: float | None
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All lines."""

    lines: tuple[Compared, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of the lines; one that was not recorded says nothing."""
        found = {line.verdict for line in self.lines}
        return next(v for v in (Verdict.DIFFERS, Verdict.WITHIN, Verdict.EQUAL) if v in found or v is Verdict.EQUAL)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {"verdict": self.verdict.value, "lines": [asdict(line) for line in self.lines]}

    def table(self) -> str:
        """The lines as a Markdown table."""
        heads = ("", "version", "reproduction", "difference", "verdict")
        rows = [
            (one.what, one.before, one.after, "" if one.difference is None else f"{one.difference:.3g}", one.verdict)
            for one in self.lines
        ]
        widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
        lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        head = " | ".join(cell.ljust(width) for cell, width in zip(heads, widths, strict=True))
        rule = " | ".join("-" * max(3, width) for width in widths)
        return "\n".join(f"| {line} |" for line in (head, rule, *lines))


def _judged(what: str, before: str, after: str, difference: float, tolerance: float) -> Compared:
    within = Verdict.WITHIN if difference <= tolerance else Verdict.DIFFERS
    verdict = Verdict.EQUAL if difference == 0 else within
    return Compared(what=what, before=before, after=after, difference=difference, verdict=verdict)


def _largest(pairs: Iterable[tuple[float, float]]) -> float:
    """Largest absolute difference; two numbers that are both not finite in the same way do not differ."""
    gaps = [0.0 if repr(a) == repr(b) else abs(a - b) for a, b in pairs]
    return max((float("inf") if gap != gap else gap for gap in gaps), default=0.0)


def compare_curves(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], tolerance: float
) -> list[Compared]:
    """The final loss, and every number of every epoch but its time.

    Args:
        before, after: one record per epoch, as a bundle has them; none for a recipe that learns nothing.
    """
    if not before and not after:
        return []
    if len(before) != len(after):
        counts = (f"{len(before)} epochs", f"{len(after)} epochs")
        gap = float(abs(len(before) - len(after)))
        return [Compared(what="epochs", before=counts[0], after=counts[1], difference=gap, verdict=Verdict.DIFFERS)]
    last = (before[-1]["loss"], after[-1]["loss"])
    numbers = {n for record in (*before, *after) for n, value in record.items() if isinstance(value, int | float)}
    names = sorted(numbers - _APART)
    lines = [_judged("final loss", f"{last[0]:.6f}", f"{last[1]:.6f}", _largest([last]), tolerance)]
    for name in names:
        pairs = [(float(a.get(name, "nan")), float(b.get(name, "nan"))) for a, b in zip(before, after, strict=True)]
        shown = f"{len(pairs)} epochs"
        lines.append(_judged(f"{name}, epoch by epoch", shown, shown, _largest(pairs), tolerance))
    return lines


def compare_metrics(before: Mapping[str, float], after: Mapping[str, float], tolerance: float) -> list[Compared]:
    """Every metric of `after` beside the recorded one of that name."""
    lines = []
    for name, value in sorted(after.items()):
        if name in before:
            gap = _largest([(before[name], value)])
            lines.append(_judged(name, f"{before[name]:.6f}", f"{value:.6f}", gap, tolerance))
        else:
            lines.append(
                Compared(what=name, before="", after=f"{value:.6f}", difference=None, verdict=Verdict.UNRECORDED)
            )
    return lines


def compare_weights(before: Bundle, after: Bundle, tolerance: float) -> Compared:
    """All trained tensors, as one line."""
    old, new = before.recommender.trained_state(), after.recommender.trained_state()
    numbers = [sum(tensor.numel() for tensor in state.values()) for state in (old, new)]
    shapes = [{name: tuple(tensor.shape) for name, tensor in state.items()} for state in (old, new)]
    shown = [f"{count:,} in {len(state)} tensors" for count, state in zip(numbers, (old, new), strict=True)]
    if shapes[0] != shapes[1]:
        return Compared(
            what="weights", before=shown[0], after=shown[1], difference=float("inf"), verdict=Verdict.DIFFERS
        )
    gap = 0.0
    for name, tensor in old.items():
        if not torch.equal(tensor, new[name]):
            found = (tensor.double() - new[name].double()).abs().max().item()
            gap = max(gap, float("inf") if found != found else found)
    return _judged("weights", shown[0], shown[1], gap, tolerance)


def compare_lists(before: Bundle, after: Bundle, readers: Sequence[User], tolerance: float) -> list[Compared]:
    """Recommendations for `readers`: lists that are item for item the same, and the scores in those."""
    lists = [
        bundle.recommend([reader.history for reader in readers], [None] * len(readers), LISTED, **user_columns(readers))
        for bundle in (before, after)
    ]
    pairs = list(zip(*lists, strict=True))
    same = [(a, b) for a, b in pairs if [item for item, _ in a] == [item for item, _ in b]]
    other = len(pairs) - len(same)
    verdict = Verdict.DIFFERS if other else Verdict.EQUAL
    shown = f"{len(pairs)} lists of {LISTED}"
    lines = [
        Compared(what="recommendations", before=shown, after=f"{len(same)} the same", difference=other, verdict=verdict)
    ]
    if same:
        gap = _largest((x, y) for a, b in same for (_, x), (_, y) in zip(a, b, strict=True))
        lines.append(_judged("scores of the same lists", f"{len(same)} lists", f"{len(same)} lists", gap, tolerance))
    return lines
