"""How well opinions are recovered from reviews, by preferences at each position and by summaries of users."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.landing.planted_world.mentions import named_attributes, stems_of
from pipelines.landing.planted_world.truth import DISLIKE, LIKE, Opinion, TruePosition
from pipelines.language.validation import sentiment_of
from pipelines.recovery.histories import History
from schemas.errors import DataError

# Preferences never mention prices, so this attribute is never recovered.
PRICE = "budget_price"


@dataclass(frozen=True, kw_only=True)
class ReadOpinion:
    """An opinion with its `evidence`, the positions of the reviews that it was read from."""

    opinion: Opinion
    evidence: tuple[int, ...]


# Opinions by (user, position), for every position that was requested.
Readings = Mapping[tuple[str, int], Sequence[ReadOpinion]]


def stage_readings(
    rows: Iterable[Mapping[str, Any]],
) -> tuple[dict[tuple[str, int], list[ReadOpinion]], dict[str, int]]:
    """The opinions in the table preferences; the number of its lines, and of those that name no planted attribute."""
    readings: dict[tuple[str, int], list[ReadOpinion]] = {}
    lines = nameless = 0
    for row in rows:
        if row["status"] == "not_asked":
            continue
        found = readings.setdefault((row["user_id"], row["position"]), [])
        for line, sentiment, evidence in zip(row["preferences"], row["sentiments"], row["evidence"], strict=True):
            names = named_attributes(stems_of(line))
            lines += 1
            nameless += not names
            found.extend(ReadOpinion(opinion=(sentiment, name), evidence=tuple(evidence)) for name in sorted(names))
    return readings, {"lines": lines, "lines_naming_nothing": nameless}


def windowed(
    by_review: Mapping[tuple[str, int], Iterable[Opinion]], places: Iterable[tuple[str, int]], window: int
) -> dict[tuple[str, int], list[ReadOpinion]]:
    """Readings from opinions of single reviews, as the stage merges them: the newest on each attribute in a window."""
    readings = {}
    for user_id, position in places:
        newest: dict[str, ReadOpinion] = {}
        for earlier in range(max(0, position - window + 1), position + 1):
            for opinion in by_review.get((user_id, earlier), ()):
                newest[opinion[1]] = ReadOpinion(opinion=opinion, evidence=(earlier,))
        readings[user_id, position] = list(newest.values())
    return readings


def requested_opinions(true: TruePosition) -> frozenset[Opinion]:
    """Opinions of a review that its stars allow the stage to request: likes from four stars, dislikes up to two."""
    return frozenset(opinion for opinion in true.opinions if opinion[0] == sentiment_of(true.stars))


def preference_recovery(readings: Readings, histories: Mapping[str, History], window: int) -> dict[str, dict[str, Any]]:
    """Precision and recall of readings, likes and dislikes apart, counted over (user, position, attribute).

    Returns:
        By sentiment: the number ``said``, and shares, None without a denominator: ``precision`` (confirmed by a review
        in the evidence), ``precision_taste`` (by the taste planted at the position), ``recall`` of all opinions in the
        window's reviews, ``recall_asked`` of those that the stars allow the stage to request, and
        ``recall_asked_no_price`` of the latter without the attribute `PRICE`.
    """
    counts: dict[str, Counter[str]] = {LIKE: Counter(), DISLIKE: Counter()}
    for (user_id, position), found in readings.items():
        truth = histories[user_id].truth
        named = {one.opinion for one in found}
        confirmed = {one.opinion for one in found if any(one.opinion in truth[p].opinions for p in one.evidence)}
        for opinion in named:
            count = counts[opinion[0]]
            count["said"] += 1
            count["right"] += opinion in confirmed
            count["taste"] += opinion in truth[position].tastes
        requested = expressed(truth, position, window, only_requested=True)
        levels = {
            "recall": expressed(truth, position, window, only_requested=False),
            "recall_asked": requested,
            "recall_asked_no_price": {opinion for opinion in requested if opinion[1] != PRICE},
        }
        for name, wanted in levels.items():
            for opinion in wanted:
                counts[opinion[0]][f"{name}.wanted"] += 1
                counts[opinion[0]][f"{name}.found"] += opinion in named
    return {
        sentiment: {
            "said": count["said"],
            "precision": share(count["right"], count["said"]),
            "precision_taste": share(count["taste"], count["said"]),
            **{
                name: share(count[f"{name}.found"], count[f"{name}.wanted"])
                for name in ("recall", "recall_asked", "recall_asked_no_price")
            },
        }
        for sentiment, count in counts.items()
    }


def expressed(truth: Sequence[TruePosition], position: int, window: int, *, only_requested: bool) -> dict[Opinion, int]:
    """The newest opinion on each attribute in the last `window` reviews up to a position, with its position."""
    newest: dict[str, tuple[Opinion, int]] = {}
    for earlier in range(max(0, position - window + 1), position + 1):
        for opinion in requested_opinions(truth[earlier]) if only_requested else truth[earlier].opinions:
            newest[opinion[1]] = (opinion, earlier)
    return dict(newest.values())


def missed_because(
    readings: Readings, histories: Mapping[str, History], refused: Mapping[tuple[str, int], str], window: int
) -> dict[str, int]:
    """Why requested opinions are not in the readings, with counts, most frequent first.

    ``refused: ...`` gives the reason why the review's line was refused; ``merged away`` means that later lines
    displaced the one that named it, ``not in the line`` that the model did not name it.
    """
    causes: Counter[str] = Counter()
    for (user_id, position), found in readings.items():
        named = {one.opinion for one in found}
        for opinion, place in expressed(histories[user_id].truth, position, window, only_requested=True).items():
            if opinion in named:
                continue
            then = readings[user_id, place]
            if any(one.opinion == opinion and place in one.evidence for one in then):
                causes["merged away"] += 1
            elif (user_id, place) in refused:
                causes[f"refused: {refused[user_id, place]}"] += 1
            else:
                causes["not in the line"] += 1
    return dict(causes.most_common())


def summary_recovery(rows: Iterable[Mapping[str, Any]], histories: Mapping[str, History]) -> dict[str, Any]:
    """Precision and recall of the users' last summaries, against the newest opinion on each attribute.

    ``recall_asked`` is the share of requested opinions that the summary names, ``precision`` the share of named
    opinions that a review expresses.
    """
    last: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row["status"] != "not_asked" and (
            row["user_id"] not in last or last[row["user_id"]]["as_of"] < row["as_of"]
        ):
            last[row["user_id"]] = row
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for user_id, row in last.items():
        truth = histories[user_id].truth
        named = _summarised(row["summary"])
        wanted = expressed(truth, len(truth) - 1, len(truth), only_requested=True)
        for opinion in wanted:
            counts[opinion[0]]["wanted"] += 1
            counts[opinion[0]]["found"] += opinion in named
        for opinion in named:
            counts[opinion[0]]["said"] += 1
            counts[opinion[0]]["right"] += any(opinion in true.opinions for true in truth)
    return {
        "users": len(last),
        **{
            sentiment: {
                "said": counts[sentiment]["said"],
                "precision": share(counts[sentiment]["right"], counts[sentiment]["said"]),
                "recall_asked": share(counts[sentiment]["found"], counts[sentiment]["wanted"]),
            }
            for sentiment in (LIKE, DISLIKE)
        },
    }


def _summarised(summary: str) -> set[Opinion]:
    likes, _, dislikes = summary.partition("Avoids ")
    if summary and not summary.startswith(("Likes ", "Avoids ")):
        raise DataError(
            f"{summary[:80]!r} is no summary that review_summaries writes: it begins with no Likes or Avoids"
        )
    sides = {LIKE: likes.removeprefix("Likes "), DISLIKE: dislikes}
    return {
        (sentiment, name)
        for sentiment, phrase in sides.items()
        for part in re.split(r",| and ", phrase)
        for name in named_attributes(stems_of(part))
    }


def share(part: float, whole: float) -> float | None:
    """The quotient; None where `whole` is 0."""
    return part / whole if whole else None
