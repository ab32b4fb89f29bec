"""From one line per review to what may be said of a user at a position."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.words import content_stems, similarity


@dataclass(frozen=True, kw_only=True)
class Line:
    """A validated line and the position of the review it comes from."""

    position: int
    text: str
    sentiment: str


@dataclass(frozen=True, kw_only=True)
class Preference:
    """What a user prefers or avoids, with the positions of the reviews that say so, ascending."""

    text: str
    sentiment: str
    evidence: tuple[int, ...]


def merge_lines(lines: Sequence[Line], *, most: int, same_from: float) -> list[Preference]:
    """Merge lines, newest first: a near-duplicate adds its evidence, the newer wording and the newer mind stay.

    An older line is a near-duplicate when a newer one of the same sentiment says most of what it says. An older line
    about the same thing with the opposite sentiment is old news and is dropped.

    Args:
        most: preferences kept.
        same_from: share of the older line's content words that a newer one repeats, or for opposite sentiments the
            overlap of the two (0 to 1), from which they count as the same.
    """
    kept: list[tuple[Line, frozenset[str], list[int]]] = []
    for line in sorted(lines, key=lambda line: -line.position):
        content = content_stems(line.text)
        if any(k.sentiment != line.sentiment and similarity(content, said) >= same_from for k, said, _ in kept):
            continue
        twin = next(
            (at for k, said, at in kept if k.sentiment == line.sentiment and _says(said, content, same_from)), None
        )
        if twin is None:
            kept.append((line, content, [line.position]))
        else:
            twin.append(line.position)
    return [
        Preference(text=line.text, sentiment=line.sentiment, evidence=tuple(sorted(set(positions))))
        for line, _, positions in kept[:most]
    ]


def _says(newer: frozenset[str], older: frozenset[str], share: float) -> bool:
    return bool(older) and len(newer & older) >= share * len(older)


def preferences_by_position(
    lines: Mapping[int, Sequence[Line]], length: int, *, window: int, most: int, same_from: float
) -> list[list[Preference]]:
    """Preferences at every position of a history, each from the last `window` reviews up to it and none after it."""
    return [
        merge_lines(
            [line for p in range(max(0, position - window + 1), position + 1) for line in lines.get(p, ())],
            most=most,
            same_from=same_from,
        )
        for position in range(length)
    ]
