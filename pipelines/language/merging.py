"""Merges lines about single reviews into the preferences of a user at each position."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.words import content_stems, similarity


@dataclass(frozen=True, kw_only=True)
class Line:
    """A validated line and the position of its review."""

    position: int
    text: str
    sentiment: str


@dataclass(frozen=True, kw_only=True)
class Preference:
    """What a user prefers or avoids, with the ascending positions of the reviews it rests on (`evidence`)."""

    text: str
    sentiment: str
    evidence: tuple[int, ...]


def merge_lines(lines: Sequence[Line], *, most: int, same_from: float) -> list[Preference]:
    """Merge lines, newest first.

    An older line that a newer one of the same sentiment repeats adds its evidence to that one; an older line on the
    same subject with the opposite sentiment is outdated and dropped.

    Args:
        most: preferences kept.
        same_from: share of the older line's content words that the newer one must repeat, or, for opposite sentiments,
            the overlap of the two (0 to 1).
    """
    kept: list[tuple[Line, frozenset[str], list[int]]] = []
    for line in sorted(lines, key=lambda line: -line.position):
        content = content_stems(line.text)
        if any(k.sentiment != line.sentiment and similarity(content, words) >= same_from for k, words, _ in kept):
            continue
        twin = next(
            (at for k, words, at in kept if k.sentiment == line.sentiment and _repeats(words, content, same_from)), None
        )
        if twin is None:
            kept.append((line, content, [line.position]))
        else:
            twin.append(line.position)
    return [
        Preference(text=line.text, sentiment=line.sentiment, evidence=tuple(sorted(set(positions))))
        for line, _, positions in kept[:most]
    ]


def _repeats(newer: frozenset[str], older: frozenset[str], share: float) -> bool:
    return bool(older) and len(newer & older) >= share * len(older)


def preferences_by_position(
    lines: Mapping[int, Sequence[Line]], length: int, *, window: int, most: int, same_from: float
) -> list[list[Preference]]:
    """Preferences at every position of a history, from the last `window` reviews up to and including it."""
    return [
        merge_lines(
            [line for p in range(max(0, position - window + 1), position + 1) for line in lines.get(p, ())],
            most=most,
            same_from=same_from,
        )
        for position in range(length)
    ]
