"""From one line per review to what may be said of a user at a position."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.language.words import content_stems, similarity


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

    A line about the same thing with the opposite sentiment is older news and is dropped.

    Args:
        most: preferences kept.
        same_from: similarity of content words (0 to 1) from which two lines are about the same thing.
    """
    kept: list[tuple[Line, list[int]]] = []
    for line in sorted(lines, key=lambda line: -line.position):
        content = content_stems(line.text)
        twin = next((k for k in kept if similarity(content, content_stems(k[0].text)) >= same_from), None)
        if twin is None:
            kept.append((line, [line.position]))
        elif twin[0].sentiment == line.sentiment:
            twin[1].append(line.position)
    return [
        Preference(text=line.text, sentiment=line.sentiment, evidence=tuple(sorted(positions)))
        for line, positions in kept[:most]
    ]


def preferences_by_position(
    lines: Mapping[int, Line], length: int, *, window: int, most: int, same_from: float
) -> list[list[Preference]]:
    """Preferences at every position of a history, each from the last `window` reviews up to it and none after it."""
    return [
        merge_lines(
            [lines[p] for p in range(max(0, position - window + 1), position + 1) if p in lines],
            most=most,
            same_from=same_from,
        )
        for position in range(length)
    ]
