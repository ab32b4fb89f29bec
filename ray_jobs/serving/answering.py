"""Answers to requests that came in at the same time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from infra.errors import SettingError
from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.serving.asks import Ask, Refused
from schemas.errors import DataError


@dataclass(frozen=True, eq=False)
class Live:
    """A version in memory, ready to answer.

    Args:
        version: as in ``<name>/<number>``.
        since: second since 1970 at which it was loaded.
    """

    version: str
    bundle: Bundle
    since: float


@dataclass(frozen=True)
class Job:
    """A request and the version that answers it, settled when the request came in."""

    live: Live
    ask: Ask


class Answer(TypedDict):
    """Items for one request, best first; `because` has the words of each that a wish found, see `Reasons`."""

    model_version: str
    item_ids: list[str]
    titles: list[str]
    scores: list[float]
    because: list[list[str]]
    unmatched: list[str]


def answer(jobs: Sequence[Job]) -> list[Answer | Exception]:
    """Answer each of `jobs`; those that the model can take together go through it together.

    Together go requests of one version with the same ``k`` and ``exclude_seen``, all with times or all without. What
    fails one group fails no other.

    Returns:
        In the order of `jobs`, an answer, or the error: `Refused` where the client can mend it.
    """
    groups: dict[tuple[Live, int, bool, bool], list[int]] = {}
    for place, job in enumerate(jobs):
        key = (job.live, job.ask.k, job.ask.exclude_seen, job.ask.times is None)
        groups.setdefault(key, []).append(place)
    answers: list[Answer | Exception] = [AssertionError("unanswered")] * len(jobs)
    for (live, *_), places in groups.items():
        found = _together(live, [jobs[place].ask for place in places])
        for place, one in zip(places, found, strict=True):
            answers[place] = one
    return answers


def _together(live: Live, asks: Sequence[Ask]) -> Sequence[Answer | Exception]:
    first, now = asks[0], int(time.time())
    preferences, known = [_sentence(ask.preference) for ask in asks], [_sentence(ask.known) for ask in asks]
    try:
        rows = live.bundle.recommend(
            [ask.history for ask in asks],
            preferences,
            k=first.k,
            exclude_seen=first.exclude_seen,
            times=None if first.times is None else [ask.times or () for ask in asks],
            asked_at=[now if ask.asked_at is None else ask.asked_at for ask in asks],
            known=known,
            strength=[ask.strength for ask in asks],
        )
        reasons = [
            live.bundle.reasons(live.bundle.counted(given, other), [item for item, _ in row])
            for given, other, row in zip(preferences, known, rows, strict=True)
        ]
    except SettingError as error:
        return [Refused("k", str(error))] * len(asks)
    except DataError as error:
        return [Refused("times", str(error))] * len(asks)
    except Exception as error:
        return [error] * len(asks)
    catalogue = live.bundle.catalogue
    return [
        Answer(
            model_version=live.version,
            item_ids=[item for item, _ in row],
            titles=[catalogue.titles[catalogue.index[item]] for item, _ in row],
            scores=[float(score) for _, score in row],
            because=[list(words) for words in found.because],
            unmatched=list(found.unmatched),
        )
        for row, found in zip(rows, reasons, strict=True)
    ]


def _sentence(text: str | None) -> str | None:
    return (text or "").strip() or None
