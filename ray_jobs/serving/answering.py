"""Answers to a batch of requests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from infra.errors import SettingError
from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.serving.parsing import RecommendRequest, RequestError
from schemas.columns import COLUMNS, HISTORY, requested
from schemas.errors import DataError


@dataclass(frozen=True, eq=False)
class LoadedVersion:
    """A model version in memory.

    Args:
        version: ``<name>/<number>``.
        since: second since 1970 at which it was loaded.
    """

    version: str
    bundle: Bundle
    since: float


@dataclass(frozen=True)
class Job:
    """A request and the version that answers it, which is fixed when the request arrives."""

    live: LoadedVersion
    request: RecommendRequest


class Answer(TypedDict):
    """Items for one request, best first; `because` lists the matched words of each, see `Reasons`."""

    model_version: str
    item_ids: list[str]
    titles: list[str]
    scores: list[float]
    because: list[list[str]]
    unmatched: list[str]


def answer(jobs: Sequence[Job]) -> list[Answer | Exception]:
    """Answer `jobs`, in groups that the model can process together.

    The requests of a group have the same version, ``exclude_seen`` and columns. If a group fails, its requests are
    answered one by one, so that one bad request fails no other.

    Returns:
        For each job an answer or an error: `RequestError` if the client can correct it.
    """
    groups: dict[tuple[LoadedVersion, bool, tuple[str, ...]], list[int]] = {}
    answers: list[Answer | Exception] = [AssertionError("unanswered")] * len(jobs)
    for place, job in enumerate(jobs):
        if refused := _refused(job):
            answers[place] = refused
        else:
            groups.setdefault((job.live, job.request.exclude_seen, tuple(_columns(job.request))), []).append(place)
    for (live, *_), places in groups.items():
        found = _each(live, [jobs[place].request for place in places])
        for place, one in zip(places, found, strict=True):
            answers[place] = one
    return answers


def _refused(job: Job) -> RequestError | None:
    """The error of a valid request that this version cannot answer."""
    bundle = job.live.bundle
    try:
        bundle.recommender.check_width(min(job.request.k, len(bundle.catalogue)))
    except SettingError as error:
        return RequestError("k", str(error))
    try:
        bundle.rules.check(job.request.value(COLUMNS["where"]))
    except DataError as error:
        return RequestError("where", str(error))
    cut = bundle.truncation(job.request.value(COLUMNS["preferences"]))
    return RequestError("preference", f"{cut}: shorten it") if cut else None


def _each(live: LoadedVersion, requests: Sequence[RecommendRequest]) -> Sequence[Answer | Exception]:
    try:
        return _together(live, requests)
    except Exception as error:
        if len(requests) == 1:
            return [RequestError("times", str(error)) if isinstance(error, DataError) else error]
    return [one for request in requests for one in _each(live, [request])]


def _together(live: LoadedVersion, requests: Sequence[RecommendRequest]) -> list[Answer | Exception]:
    columns = {name: [request.value(COLUMNS[name]) for request in requests] for name in _columns(requests[0])}
    preferences, known = columns.pop("preferences"), columns.pop("known")
    longest = live.bundle.recommend(
        columns.pop(HISTORY),
        preferences,
        k=max(request.k for request in requests),
        exclude_seen=requests[0].exclude_seen,
        known=known,
        **columns,
    )
    return [
        _answered(live, live.bundle.effective_preference(given, other), row[: request.k])
        for request, given, other, row in zip(requests, preferences, known, longest, strict=True)
    ]


def _columns(request: RecommendRequest) -> list[str]:
    """Names of the columns that the request has a value or a default of."""
    return [column.name for column, _ in requested() if request.value(column) is not None]


def _answered(live: LoadedVersion, sentence: str | None, row: Sequence[tuple[str, float]]) -> Answer | Exception:
    if wrong := [item for item, score in row if not math.isfinite(score)]:
        return FloatingPointError(f"{live.version} gives item {wrong[0][:60]!r} a score that is not finite")
    catalogue, found = live.bundle.catalogue, live.bundle.reasons(sentence, [item for item, _ in row])
    return Answer(
        model_version=live.version,
        item_ids=[item for item, _ in row],
        titles=[catalogue.titles[catalogue.index[item]] for item, _ in row],
        scores=[float(score) for _, score in row],
        because=[list(words) for words in found.because],
        unmatched=list(found.unmatched),
    )
