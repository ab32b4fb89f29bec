"""What the page asks: champions of all data sets, each in memory from the first time that somebody asks it."""

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
from ray_jobs.serving.answering import Answer, Job, Live, answer
from ray_jobs.serving.asks import Refused, parse
from ray_jobs.serving.hot_swap import HotSwap, RegistrySource, Source
from ray_jobs.serving.page.problem import Problem
from ray_jobs.serving.page.settings import PageSettings
from ray_jobs.serving.readers import some_readers
from ray_jobs.steering.example_words import example_words
from schemas.columns import MOST_CHARACTERS
from schemas.errors import DataError
from schemas.model_versions import registered_name
from schemas.recipes import Need

MOST_FOUND = 50
MOST_SHOWN = 200
"""Items of a user's history that the page gets, the newest ones."""
_PREFIX = registered_name("")
Query = Mapping[str, str]


class Said(BaseModel, extra="forbid", strict=True):
    """A sentence, and items that it may speak against."""

    sentence: Annotated[str, Field(max_length=MOST_CHARACTERS)]
    item_ids: Annotated[list[str], Field(max_length=1_000)] = []


@dataclass
class _Held:
    swap: HotSwap
    looked: float


class Answers:
    """Loads, exchanges and asks the versions that an alias points at.

    Methods that take a query and a body answer one path each; ``dataset`` of the query says whose model is asked, and
    may be left out where there is but one.

    Args:
        sources: makes the source of a registered model.
    """

    def __init__(
        self, settings: Settings, chosen: PageSettings, sources: Callable[[str], Source] | None = None
    ) -> None:
        self._settings, self._chosen = settings, chosen
        self._sources = sources or self._registered
        self._held: dict[str, _Held] = {}
        self._loading, self._asking = threading.Lock(), threading.Lock()

    def health(self) -> dict[str, Any]:
        """Which versions are in memory, and what is wrong with them."""
        swaps = [held.swap for held in list(self._held.values())]
        models = [{"model_version": swap.live.version, "problem": swap.problem} for swap in swaps]
        return {"status": "stale" if any(swap.problem for swap in swaps) else "ok", "models": models}

    def models(self, query: Query, body: bytes) -> list[str]:  # noqa: ARG002
        """Data sets that have a champion."""
        return self._datasets()

    def start(self, query: Query, body: bytes) -> dict[str, Any]:  # noqa: ARG002
        """What the page begins with: the version, some users, sentences to try."""
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
        """At most `MOST_FOUND` items in whose title every word of ``q`` begins a word."""
        catalogue = self._live(self._dataset(query)).bundle.catalogue
        words = query.get("q", "").lower().split()
        found = []
        for row, title in enumerate(catalogue.titles):
            text = f" {title.lower()}"
            if all(f" {word}" in text for word in words):
                found.append((not text.startswith(f" {' '.join(words)}"), title, row))
        return [{"item_id": catalogue.item_ids[row], "title": title} for _, title, row in sorted(found)[:MOST_FOUND]]

    def recommend(self, query: Query, body: bytes) -> Answer | list[Answer]:
        """One request, or a list of them that one version answers; see `ray_jobs.serving.asks.Ask`."""
        try:
            asked = parse(body)
            live = self._live(self._dataset(query))
            with self._asking:
                found = answer([Job(live, ask) for ask in (asked if isinstance(asked, list) else [asked])])
            answers: list[Answer] = []
            for place, one in enumerate(found):
                if isinstance(one, Exception):
                    raise one.within(place) if isinstance(one, Refused) and isinstance(asked, list) else one
                answers.append(one)
        except Refused as refused:
            raise Problem(refused.status, refused.problem, refused.field) from refused
        return answers if isinstance(asked, list) else answers[0]

    def heard(self, query: Query, body: bytes) -> dict[str, Any]:
        """How a sentence is understood: phrases ``wanted``, ``refused`` and ``unmatched``.

        ``against`` has for each of the items the words of its text that speak against it.
        """
        try:
            said = Said.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"]))
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, first["msg"], field) from error
        bundle = self._live(self._dataset(query)).bundle
        layer, index = bundle.recommender.steering, bundle.catalogue.index
        if layer is None:
            return {"wanted": [], "refused": [], "unmatched": [], "against": [[] for _ in said.item_ids]}
        with self._asking:
            heard = layer.hear(said.sentence)
            against = [layer.against(said.sentence, index[item]) if item in index else () for item in said.item_ids]
        return {"wanted": heard.wanted, "refused": heard.refused, "unmatched": heard.unmatched, "against": against}

    def _registered(self, name: str) -> Source:
        runs.connect(self._settings)
        return RegistrySource(self._settings.mlflow.tracking_uri, name, self._chosen.alias)

    def _datasets(self) -> list[str]:
        with _explained():
            models = runs.connect(self._settings).search_registered_models(max_results=1000)
        named = [model.name for model in models if self._chosen.alias in model.aliases]
        return sorted(name.removeprefix(_PREFIX) for name in named if name.startswith(_PREFIX))

    def _dataset(self, query: Query) -> str:
        if dataset := query.get("dataset"):
            return dataset
        known = self._datasets()
        if len(known) == 1:
            return known[0]
        problem = f"say which data set, ?dataset=<name>: {', '.join(known)}" if known else "no data set has a champion"
        raise Problem(HTTPStatus.NOT_FOUND, problem, "dataset")

    def _live(self, dataset: str) -> Live:
        """The version that answers for a data set; looks at the alias where that was last done a while ago."""
        with self._loading, _explained():
            held = self._held.get(dataset)
            if held is None:
                swap = HotSwap(self._sources(registered_name(dataset)), self._chosen.retry_s)
                held = self._held[dataset] = _Held(swap, time.monotonic())
            elif time.monotonic() - held.looked >= self._chosen.poll_s:
                held.swap.refresh()
                held.looked = time.monotonic()
            return held.swap.live

    def _users(self, dataset: str, live: Live) -> tuple[list[dict[str, Any]], str]:
        """Users to choose from, and why there are none."""
        catalogue = live.bundle.catalogue
        try:
            readers = some_readers(self._settings, dataset, self._chosen.users).readers
        except DataError as error:
            return [], str(error)
        users = []
        for reader in readers:
            history = [
                {"item_id": i, "title": catalogue.titles[catalogue.index[i]] if i in catalogue.index else i, "time": t}
                for i, t in zip(reader.history, reader.times, strict=True)
            ]
            told = {"user_id": reader.user_id, "known": reader.preference, "asked_at": reader.asked_at}
            users.append({**told, "history": history[-MOST_SHOWN:]})
        return users, ""


@lru_cache(maxsize=2)
def _examples(live: Live) -> list[str]:
    """Sentences to begin with, of words that the catalogue has often."""
    layer = live.bundle.recommender.steering
    if layer is None:
        return []
    terms = layer.terms.terms
    found = [terms.forms[row] for row in example_words(terms, live.bundle.catalogue.titles, 4)]
    if len(found) < 4:
        return [f"Prefers {word}" for word in found]
    return [f"Prefers {found[0]}", f"Avoids {found[1]}", f"Prefers {found[2]}, avoids {found[3]}"]


@contextmanager
def _explained() -> Iterator[None]:
    """What the registry cannot give as one sentence for the person who looks at the page."""
    try:
        yield
    except SettingError as error:
        raise Problem(HTTPStatus.NOT_FOUND, str(error)) from error
    except (DataError, MlflowException, OSError) as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{type(error).__name__}: {error}") from error
