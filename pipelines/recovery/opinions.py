"""How well opinions are recovered from reviews: preferences position by position, and summaries of users."""

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

# Preferences say nothing about prices, so that reasons of this kind are never told.
PRICE = "budget_price"


@dataclass(frozen=True, kw_only=True)
class Said:
    """An opinion that was read out of the reviews at `evidence`, positions of a history."""

    opinion: Opinion
    evidence: tuple[int, ...]


# What was read by (user, position), for every position that was asked about.
Readings = Mapping[tuple[str, int], Sequence[Said]]


def stage_readings(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[tuple[str, int], list[Said]], dict[str, int]]:
    """What the table preferences says, and how many of its lines there are and name no planted attribute."""
    readings: dict[tuple[str, int], list[Said]] = {}
    lines = nameless = 0
    for row in rows:
        if row["status"] == "not_asked":
            continue
        found = readings.setdefault((row["user_id"], row["position"]), [])
        for line, sentiment, evidence in zip(row["preferences"], row["sentiments"], row["evidence"], strict=True):
            names = named_attributes(stems_of(line))
            lines += 1
            nameless += not names
            found.extend(Said(opinion=(sentiment, name), evidence=tuple(evidence)) for name in sorted(names))
    return readings, {"lines": lines, "lines_naming_nothing": nameless}


def windowed(
    by_review: Mapping[tuple[str, int], Iterable[Opinion]], places: Iterable[tuple[str, int]], window: int
) -> dict[tuple[str, int], list[Said]]:
    """Readings from opinions of single reviews, as the stage makes them: newest mind of the last `window` reviews."""
    readings = {}
    for user_id, position in places:
        newest: dict[str, Said] = {}
        for earlier in range(max(0, position - window + 1), position + 1):
            for opinion in by_review.get((user_id, earlier), ()):
                newest[opinion[1]] = Said(opinion=opinion, evidence=(earlier,))
        readings[user_id, position] = list(newest.values())
    return readings


def asked_opinions(true: TruePosition) -> frozenset[Opinion]:
    """Opinions of a review that its stars let the stage ask for: likes from four stars, dislikes up to two."""
    return frozenset(opinion for opinion in true.opinions if opinion[0] == sentiment_of(true.stars))


def preference_recovery(readings: Readings, histories: Mapping[str, History], window: int) -> dict[str, dict[str, Any]]:
    """Precision and recall of readings, likes and dislikes apart, counted over (user, position, attribute).

    Returns:
        By sentiment: ``said`` and the shares (None where nothing was said or to be said) ``precision`` (a review in
        its evidence says so), ``precision_taste`` (the taste planted at the position says so), ``recall`` of all
        that the window's reviews say, ``recall_asked`` of what the stars let the stage ask for, and
        ``recall_asked_no_price`` of that without the attribute `PRICE`.
    """
    counts: dict[str, Counter[str]] = {LIKE: Counter(), DISLIKE: Counter()}
    for (user_id, position), found in readings.items():
        truth = histories[user_id].truth
        told = {said.opinion for said in found}
        borne_out = {said.opinion for said in found if any(said.opinion in truth[p].opinions for p in said.evidence)}
        for opinion in told:
            count = counts[opinion[0]]
            count["said"] += 1
            count["right"] += opinion in borne_out
            count["taste"] += opinion in truth[position].tastes
        asked = expressed(truth, position, window, only_asked=True)
        levels = {
            "recall": expressed(truth, position, window, only_asked=False),
            "recall_asked": asked,
            "recall_asked_no_price": {opinion for opinion in asked if opinion[1] != PRICE},
        }
        for name, wanted in levels.items():
            for opinion in wanted:
                counts[opinion[0]][f"{name}.wanted"] += 1
                counts[opinion[0]][f"{name}.found"] += opinion in told
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


def expressed(truth: Sequence[TruePosition], position: int, window: int, *, only_asked: bool) -> dict[Opinion, int]:
    """Opinions in the last `window` reviews up to a position, the newest of each attribute, with where it stands."""
    newest: dict[str, tuple[Opinion, int]] = {}
    for earlier in range(max(0, position - window + 1), position + 1):
        for opinion in asked_opinions(truth[earlier]) if only_asked else truth[earlier].opinions:
            newest[opinion[1]] = (opinion, earlier)
    return dict(newest.values())


def missed_because(
    readings: Readings, histories: Mapping[str, History], refused: Mapping[tuple[str, int], str], window: int
) -> dict[str, int]:
    """Why opinions that the stage asked for are not in its readings, most frequent first.

    ``refused: ...`` gives the reason why the review's line was put into quarantine, ``merged away`` means that the line
    named it and a later one about other things took its place, ``not in the line`` that the model did not say it.
    """
    causes: Counter[str] = Counter()
    for (user_id, position), found in readings.items():
        told = {said.opinion for said in found}
        for opinion, place in expressed(histories[user_id].truth, position, window, only_asked=True).items():
            if opinion in told:
                continue
            then = readings[user_id, place]
            if any(said.opinion == opinion and place in said.evidence for said in then):
                causes["merged away"] += 1
            elif (user_id, place) in refused:
                causes[f"refused: {refused[user_id, place]}"] += 1
            else:
                causes["not in the line"] += 1
    return dict(causes.most_common())


def summary_recovery(rows: Iterable[Mapping[str, Any]], histories: Mapping[str, History]) -> dict[str, Any]:
    """Share of opinions that the last summary of a user still names, of those asked for in all their reviews.

    The newest opinion on an attribute counts. ``precision`` is the share of opinions named that a review expresses.
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
        told = _summarised(row["summary"])
        wanted = expressed(truth, len(truth) - 1, len(truth), only_asked=True)
        for opinion in wanted:
            counts[opinion[0]]["wanted"] += 1
            counts[opinion[0]]["found"] += opinion in told
        for opinion in told:
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
    """The quotient, None where there is nothing to divide by."""
    return part / whole if whole else None
