"""Answers of the page, from the champions of all data sets; each is loaded at its first request."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Annotated, Any

from mlflow.exceptions import MlflowException
from pydantic import BaseModel, Field, ValidationError

from infra.errors import SettingError
from infra.settings import Settings
from ray_jobs.registry import runs
from ray_jobs.serving.answering import Answer, Job, LoadedVersion, answer
from ray_jobs.serving.example_users import example_users
from ray_jobs.serving.hot_swap import HotSwap, RegistrySource, Source
from ray_jobs.serving.page.problem import Problem
from ray_jobs.serving.page.settings import PageSettings
from ray_jobs.serving.parsing import RequestError, parse
from ray_jobs.steering.example_words import example_words
from schemas.columns import MOST_CHARACTERS
from schemas.errors import DataError
from schemas.model_versions import registered_name
from schemas.recipes import Need

MOST_FOUND = 50
MOST_SHOWN = 200
"""Maximum number of items of a user's history, the newest ones."""
_PREFIX = registered_name("")
Query = Mapping[str, str]


class Sentence(BaseModel, extra="forbid", strict=True):
    """A sentence, and items to check against it."""

    sentence: Annotated[str, Field(max_length=MOST_CHARACTERS)]
    item_ids: Annotated[list[str], Field(max_length=1_000)] = []


@dataclass
class _Held:
    swap: HotSwap
    looked: float


class Answers:
    """Loads and replaces the versions that an alias points at, and answers with them.

    Each method with a query and a body answers one path; ``dataset`` of the query selects the model and is optional if
    there is only one.

    Args:
        sources: returns the source of a registered model.
    """

    def __init__(
        self, settings: Settings, chosen: PageSettings, sources: Callable[[str], Source] | None = None
    ) -> None:
        self._settings, self._chosen = settings, chosen
        self._sources = sources or self._registered
        self._held: dict[str, _Held] = {}
        self._loading, self._asking = threading.Lock(), threading.Lock()

    def health(self) -> dict[str, Any]:
        """The loaded versions and their problems."""
        swaps = [held.swap for held in list(self._held.values())]
        models = [{"model_version": swap.live.version, "problem": swap.problem} for swap in swaps]
        return {"status": "stale" if any(swap.problem for swap in swaps) else "ok", "models": models}

    def models(self, query: Query, body: bytes) -> list[str]:  # noqa: ARG002
        """Data sets that have a champion."""
        return self._datasets()

    def start(self, query: Query, body: bytes) -> dict[str, Any]:  # noqa: ARG002
        """The initial content: the version, some users, example sentences."""
        dataset = self._dataset(query)
        live = self._live(dataset)
        recommender = live.bundle.recommender
        users, note = self._users(dataset, live)
        return {
            "model_version": live.version,
            "recipe": live.bundle.recipe,
            "items": len(live.bundle.catalogue),
            "steers": recommender.steering is not None,
            "reads": recommender.steering is not None or Need.PREFERENCES in recommender.needs,
            "examples": _examples(live),
            "users": users,
            "note": note,
        }

    def items(self, query: Query, body: bytes) -> list[dict[str, str]]:  # noqa: ARG002
        """At most `MOST_FOUND` items whose titles have, for every word of ``q``, a word that starts with it."""
        catalogue = self._live(self._dataset(query)).bundle.catalogue
        words = query.get("q", "").lower().split()
        found = []
        for row, title in enumerate(catalogue.titles):
            text = f" {title.lower()}"
            if all(f" {word}" in text for word in words):
                found.append((not text.startswith(f" {' '.join(words)}"), title, row))
        return [{"item_id": catalogue.item_ids[row], "title": title} for _, title, row in sorted(found)[:MOST_FOUND]]

    def recommend(self, query: Query, body: bytes) -> Answer | list[Answer]:
        """The answer to one request, or to a list; see `ray_jobs.serving.parsing.RecommendRequest`."""
        try:
            requested = parse(body)
            live = self._live(self._dataset(query))
            with self._asking:
                found = answer([Job(live, one) for one in (requested if isinstance(requested, list) else [requested])])
            answers: list[Answer] = []
            for place, one in enumerate(found):
                if isinstance(one, Exception):
                    raise one.within(place) if isinstance(one, RequestError) and isinstance(requested, list) else one
                answers.append(one)
        except RequestError as refused:
            raise Problem(refused.status, refused.problem, refused.field) from refused
        return answers if isinstance(requested, list) else answers[0]

    def matched(self, query: Query, body: bytes) -> dict[str, Any]:
        """How a sentence is understood: the phrases ``wanted``, ``refused`` and ``unmatched``.

        ``against`` has for each item the words of its text that the sentence refuses.
        """
        try:
            given = Sentence.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"]))
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, first["msg"], field) from error
        bundle = self._live(self._dataset(query)).bundle
        layer, index = bundle.recommender.steering, bundle.catalogue.index
        if layer is None:
            return {"wanted": [], "refused": [], "unmatched": [], "against": [[] for _ in given.item_ids]}
        with self._asking:
            found = layer.match(given.sentence)
            against = [layer.against(given.sentence, index[item]) if item in index else () for item in given.item_ids]
        return {"wanted": found.wanted, "refused": found.refused, "unmatched": found.unmatched, "against": against}

    def _registered(self, name: str) -> Source:
        runs.connect(self._settings)
        return RegistrySource(self._settings.mlflow.tracking_uri, name, self._chosen.alias)

    def _datasets(self) -> list[str]:
        with _registry_problems():
            models = runs.connect(self._settings).search_registered_models(max_results=1000)
        named = [model.name for model in models if self._chosen.alias in model.aliases]
        return sorted(name.removeprefix(_PREFIX) for name in named if name.startswith(_PREFIX))

    def _dataset(self, query: Query) -> str:
        if dataset := query.get("dataset"):
            return dataset
        known = self._datasets()
        if len(known) == 1:
            return known[0]
        problem = f"name the data set, ?dataset=<name>: {', '.join(known)}" if known else "no data set has a champion"
        raise Problem(HTTPStatus.NOT_FOUND, problem, "dataset")

    def _live(self, dataset: str) -> LoadedVersion:
        """The version for a data set; checks the alias if the last check was `poll_s` ago."""
        with self._loading, _registry_problems():
            held = self._held.get(dataset)
            if held is None:
                swap = HotSwap(self._sources(registered_name(dataset)), self._chosen.retry_s)
                held = self._held[dataset] = _Held(swap, time.monotonic())
            elif time.monotonic() - held.looked >= self._chosen.poll_s:
                held.swap.refresh()
                held.looked = time.monotonic()
            return held.swap.live

    def _users(self, dataset: str, live: LoadedVersion) -> tuple[list[dict[str, Any]], str]:
        """Users to choose from, or the reason why there are none."""
        catalogue = live.bundle.catalogue
        try:
            found = example_users(self._settings, dataset, self._chosen.users)
        except DataError as error:
            return [], str(error)
        users = []
        for user in found:
            history = [
                {"item_id": i, "title": catalogue.titles[catalogue.index[i]] if i in catalogue.index else i, "time": t}
                for i, t in zip(user.history, user.times, strict=True)
            ]
            known = {"user_id": user.user_id, "known": user.preference, "asked_at": user.asked_at}
            users.append({**known, "history": history[-MOST_SHOWN:]})
        return users, ""


@lru_cache(maxsize=2)
def _examples(live: LoadedVersion) -> list[str]:
    """Example sentences with common words of the catalogue."""
    layer = live.bundle.recommender.steering
    if layer is None:
        return []
    terms = layer.terms.terms
    found = [terms.forms[row] for row in example_words(terms, live.bundle.catalogue.titles, 4)]
    if len(found) < 4:
        return [f"Prefers {word}" for word in found]
    return [f"Prefers {found[0]}", f"Avoids {found[1]}", f"Prefers {found[2]}, avoids {found[3]}"]


@contextmanager
def _registry_problems() -> Iterator[None]:
    """Turn errors of the registry into a `Problem`."""
    try:
        yield
    except SettingError as error:
        raise Problem(HTTPStatus.NOT_FOUND, str(error)) from error
    except (DataError, MlflowException, OSError) as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{type(error).__name__}: {error}") from error
