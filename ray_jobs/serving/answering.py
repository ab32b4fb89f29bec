"""Answers to requests that came in at the same time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from infra.errors import SettingError
from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.serving.asks import Ask, Refused
from schemas.columns import COLUMNS, HISTORY, requested
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

    Together go requests of one version with the same ``exclude_seen``, all with the same columns, such as times. Where
    a group fails, its requests are answered one by one: what is wrong with one fails no other.

    Returns:
        In the order of `jobs`, an answer, or the error: `Refused` where the client can mend it.
    """
    groups: dict[tuple[Live, bool, tuple[str, ...]], list[int]] = {}
    answers: list[Answer | Exception] = [AssertionError("unanswered")] * len(jobs)
    for place, job in enumerate(jobs):
        if refused := _refused(job):
            answers[place] = refused
        else:
            groups.setdefault((job.live, job.ask.exclude_seen, tuple(_columns(job.ask))), []).append(place)
    for (live, *_), places in groups.items():
        found = _each(live, [jobs[place].ask for place in places])
        for place, one in zip(places, found, strict=True):
            answers[place] = one
    return answers


def _refused(job: Job) -> Refused | None:
    """What this version cannot do for a request that would be in order for another one."""
    bundle = job.live.bundle
    try:
        bundle.recommender.check_width(min(job.ask.k, len(bundle.catalogue)))
    except SettingError as error:
        return Refused("k", str(error))
    cut = bundle.truncation(job.ask.value(COLUMNS["preferences"]))
    return Refused("preference", f"{cut}: shorten it") if cut else None


def _each(live: Live, asks: Sequence[Ask]) -> Sequence[Answer | Exception]:
    try:
        return _together(live, asks)
    except Exception as error:
        if len(asks) == 1:
            return [Refused("times", str(error)) if isinstance(error, DataError) else error]
    return [one for ask in asks for one in _each(live, [ask])]


def _together(live: Live, asks: Sequence[Ask]) -> list[Answer | Exception]:
    columns = {name: [ask.value(COLUMNS[name]) for ask in asks] for name in _columns(asks[0])}
    preferences, known = columns.pop("preferences"), columns.pop("known")
    longest = live.bundle.recommend(
        columns.pop(HISTORY),
        preferences,
        k=max(ask.k for ask in asks),
        exclude_seen=asks[0].exclude_seen,
        known=known,
        **columns,
    )
    return [
        _answered(live, live.bundle.effective_preference(given, other), row[: ask.k])
        for ask, given, other, row in zip(asks, preferences, known, longest, strict=True)
    ]


def _columns(ask: Ask) -> list[str]:
    """Names of the columns that it has a value of, its own or the one that stands for it."""
    return [column.name for column, _ in requested() if ask.value(column) is not None]


def _answered(live: Live, sentence: str | None, row: Sequence[tuple[str, float]]) -> Answer | Exception:
    if wrong := [item for item, score in row if not math.isfinite(score)]:
        return FloatingPointError(f"{live.version} gives item {wrong[0][:60]!r} a score that is no number")
    catalogue, found = live.bundle.catalogue, live.bundle.reasons(sentence, [item for item, _ in row])
    return Answer(
        model_version=live.version,
        item_ids=[item for item, _ in row],
        titles=[catalogue.titles[catalogue.index[item]] for item, _ in row],
        scores=[float(score) for _, score in row],
        because=[list(words) for words in found.because],
        unmatched=list(found.unmatched),
    )
