"""Rank the held-out items of all users, one group of users at a time, in this process or on Ray actors.

Only a few numbers are kept per user; everything else is dropped with the group.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from ray_jobs.actors import Run, copies_of
from ray_jobs.data.catalogue import IntArray
from ray_jobs.data.examples import Examples, evaluation_examples, latest_preferences
from ray_jobs.data.histories import Histories, Split
from ray_jobs.evaluation.evaluator import HISTORY, WITH_PREFERENCE, Ranked, rank
from ray_jobs.evaluation.translation import Translation
from ray_jobs.recommenders.base import Recommender

USERS_PER_PART = 8192
"""A batch never has users of two parts, so that a part's results do not depend on who ranks the others."""
Job = tuple[Split, str]
_KEPT = ("users", "positions", "targets")


@dataclass(frozen=True)
class Part:
    """Users whose targets one copy of a model ranks.

    Args:
        model: a `Recommender` and, if its catalogue is not that of the histories, a `Translation`; or a reference to
            them in Ray's object store.
        number: of the model in this stage.
        first: number of the first user.
        histories: of the users.
        jobs: the splits to rank, each under a condition.
    """

    model: Any
    number: int
    first: int
    histories: Histories
    jobs: tuple[Job, ...]
    exclude_seen: bool


class Ranker:
    """Ranks parts with the model that they name, and keeps the latest one."""

    def __init__(self) -> None:
        self._number, self._model = -1, cast(tuple[Recommender, Translation | None], ())

    def __call__(self, part: Part) -> list[Ranked]:
        """One result per job, with the numbers of all users and without their histories and catalogue counts."""
        recommender, between = self._loaded(part)
        results, none = [], np.zeros(0, dtype=np.int64)
        for split, condition in part.jobs:
            examples = _examples(recommender, part.histories, split, condition)
            found = rank(recommender, part.histories, split, condition, examples, none, part.exclude_seen, between)
            kept = {name: getattr(found.examples, name) for name in _KEPT}
            slim = Examples({**kept, "users": kept["users"] + part.first}, {})
            results.append(replace(found, examples=slim))
        return results

    def _loaded(self, part: Part) -> tuple[Recommender, Translation | None]:
        if part.number != self._number:
            self._model = cast(tuple[Recommender, Translation | None], ())  # two would not fit
            self._model = part.model if isinstance(part.model, tuple) else _fetched(part.model)
            self._model[0].eval()
            self._number = part.number
        return self._model


def _fetched(reference: Any) -> tuple[Recommender, Translation | None]:
    import ray

    return cast(tuple[Recommender, Translation | None], ray.get(reference))


def _examples(recommender: Recommender, histories: Histories, split: Split, condition: str) -> Examples:
    examples = evaluation_examples(histories, split, recommender.settings.max_history)
    if condition == WITH_PREFERENCE:
        return examples.with_preferences(latest_preferences(histories, examples))
    return examples


class Ranking:
    """Ranks with one model after another, on actors if there are any; a context.

    Args:
        copies: number of actors; 0 ranks in this process.
        cpus: logical cores of each.
    """

    def __init__(self, histories: Histories, counts: IntArray, copies: int = 0, cpus: float = 1) -> None:
        self._histories, self._counts, self._copies = histories, counts, copies
        self._actors: AbstractContextManager[Run] = (
            copies_of(Ranker, (), copies, cpus) if copies else nullcontext(self._here)
        )
        self._number = 0

    def __enter__(self) -> "Ranking":
        self._run = self._actors.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._actors.__exit__(*error)

    def _here(self, parts: Iterable[Part]) -> Iterator[list[Ranked]]:
        return map(Ranker(), parts)

    def parts(
        self,
        recommender: Recommender,
        splits: tuple[Split, ...] = ("valid", "test"),
        exclude_seen: bool = True,
        between: Translation | None = None,
        as_served: bool = False,
    ) -> Iterator[list[Ranked]]:
        """The results of `ray_jobs.evaluation.evaluator.evaluate` part by part, in the order of users."""
        jobs = self._jobs(recommender, splits, as_served)
        self._number += 1
        model: Any = (recommender, between)
        if self._copies:
            import ray

            model = ray.put(model)
        given = (
            Part(model, self._number, first, part, jobs, exclude_seen) for first, part in parts_of(self._histories)
        )
        for results in self._run(given):
            yield [replace(one, counts=self._counts) for one in results]

    def _jobs(self, recommender: Recommender, splits: tuple[Split, ...], as_served: bool = False) -> tuple[Job, ...]:
        """What `evaluate` ranks: each split with the history alone, and with preferences if they may have an effect."""
        jobs: list[Job] = []
        for split in splits:
            told = WITH_PREFERENCE in recommender.conditions and _any_preference(self._histories, split)
            jobs += [(split, HISTORY)] * (not (told and as_served)) + [(split, WITH_PREFERENCE)] * told
        return tuple(jobs)


def parts_of(histories: Histories) -> Iterator[tuple[int, Histories]]:
    """The first user of each part, and the histories of its users."""
    for first in range(0, len(histories), USERS_PER_PART):
        yield first, histories.part(first, first + USERS_PER_PART)


def _any_preference(histories: Histories, split: Split) -> bool:
    return any(any(latest_preferences(part, evaluation_examples(part, split, 0))) for _, part in parts_of(histories))


class Collected:
    """The results of all parts under every job, without lists: four numbers per user and one per item."""

    def __init__(self) -> None:
        self._parts: dict[Job, list[Ranked]] = {}
        self._shown: dict[Job, IntArray] = {}

    def add(self, results: Sequence[Ranked]) -> None:
        """Add the results of a part."""
        for one in results:
            job = one.split, one.condition
            self._shown[job] = self._shown.get(job, 0) + one.places
            self._parts.setdefault(job, []).append(replace(one, lists=one.lists[:0]))

    def results(self) -> list[Ranked]:
        """One result per job, in the order in which they came."""
        return [_joined(parts, self._shown[job]) for job, parts in self._parts.items()]


def _joined(parts: Sequence[Ranked], shown: IntArray) -> Ranked:
    columns = {name: np.concatenate([getattr(part.examples, name) for part in parts]) for name in _KEPT}
    return replace(
        parts[0],
        examples=Examples(columns, {}),
        ranks=np.concatenate([part.ranks for part in parts]),
        shown=shown,
        seen_targets=sum(part.seen_targets for part in parts),
    )
