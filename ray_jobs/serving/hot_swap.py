"""The version that answers, and its exchange for the one that the alias points at."""

import logging
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import Protocol

import mlflow
import numpy as np
from mlflow import MlflowClient

from ray_jobs.recommenders.bundle import Bundle, load_bundle
from ray_jobs.registry.versions import download_bundle, resolve
from ray_jobs.serving.answering import Job, Live, answer
from ray_jobs.serving.asks import Ask
from schemas.errors import DataError

_LOG = logging.getLogger(__name__)
_LISTED = 10
"""Items that a trial asks for; every recipe lists as many where the catalogue has them."""


class Source(Protocol):
    """Where versions come from."""

    def newest(self) -> str:
        """The version that should be served, ``<name>/<number>``."""

    def load(self, version: str) -> Bundle:
        """That version, in memory."""


class RegistrySource:
    """The version of a registered model that an alias points at."""

    def __init__(self, tracking_uri: str, model_name: str, alias: str) -> None:
        mlflow.set_tracking_uri(tracking_uri)
        mlflow.set_registry_uri(tracking_uri)
        self._client = MlflowClient(tracking_uri, tracking_uri)
        self._reference = f"{model_name}@{alias}"

    def newest(self) -> str:
        """The version that the alias points at.

        Raises:
            SettingError: there is no such alias.
        """
        found = resolve(self._client, self._reference)
        return f"{found.name}/{found.version}"

    def load(self, version: str) -> Bundle:
        """Download and load a version; the copy on disk is removed again."""
        with tempfile.TemporaryDirectory(prefix="penchant-serving-") as folder:
            return load_bundle(download_bundle(resolve(self._client, version), folder))


@dataclass(frozen=True)
class _Broken:
    version: str
    problem: str
    again_at: float


class HotSwap:
    """Holds the version that answers and exchanges it while requests run.

    `live` is read once per request. A new version is loaded and answers trial requests beside the old one before the
    reference moves, so no request ever waits for a load or meets a version that cannot answer; requests that hold
    the old reference end on it.

    Args:
        retry_s: a version that failed is tried again after this time; until then only another version is.

    Raises:
        Exception: the first version cannot be loaded, for whatever reason: there is nothing to serve instead.
    """

    def __init__(self, source: Source, retry_s: float) -> None:
        self._source = source
        self._retry_s = retry_s
        self._broken: _Broken | None = None
        self.problem: str | None = None
        self.live = self._prepare(source.newest())
        self.checked = time.time()

    def refresh(self) -> None:
        """Look at the source once and exchange the version where it names another; `problem` says what went wrong."""
        try:
            wanted = self._source.newest()
        except Exception as error:
            self.problem = f"the registry does not say what to serve: {type(error).__name__}: {error}"
            return
        if wanted == self.live.version:
            self._broken = None
        elif not (self._broken and self._broken.version == wanted and time.monotonic() < self._broken.again_at):
            self._exchange(wanted)
        self.problem = self._broken.problem if self._broken else None
        self.checked = time.time()

    def _exchange(self, wanted: str) -> None:
        try:
            self.live = self._prepare(wanted)
            self._broken = None
        except Exception as error:
            problem = f"version {wanted} does not load, {self.live.version} stays: {type(error).__name__}: {error}"
            _LOG.exception(problem)
            self._broken = _Broken(wanted, problem, time.monotonic() + self._retry_s)

    def _prepare(self, version: str) -> Live:
        live = Live(version, self._source.load(version), time.time())
        _try(live)
        return live


def _try(live: Live) -> None:
    """Ask a version as clients do, with words and without.

    Raises:
        DataError: a list does not have as many different items of the catalogue as were asked for.
        FloatingPointError: a score is no number.
    """
    bundle = live.bundle
    k = _listed(bundle)
    for history in (bundle.catalogue.item_ids[:1], bundle.catalogue.item_ids[-_LISTED:]):
        for preference in (None, "Something quiet."):
            given = {"history": history, "preference": preference, "times": tuple(range(len(history)))}
            trial = Ask(given, k=k, exclude_seen=False)
            (found,) = answer([Job(live, trial)])
            if isinstance(found, Exception):
                raise found
            listed = set(found["item_ids"]) & bundle.catalogue.index.keys()
            if len(listed) < k:
                raise DataError(f"of {k} items asked of {live.version} it lists {len(listed)} different known ones")


def _listed(bundle: Bundle) -> int:
    """Items that a list of `_LISTED` has at least: fewer of a small catalogue, or where a setting caps kinds."""
    catalogue, cap = bundle.catalogue, getattr(bundle.settings, "max_per_first_code", 0)
    if not cap or catalogue.codes is None:
        return min(_LISTED, len(catalogue))
    return min(_LISTED, int(np.minimum(np.bincount(catalogue.codes[:, 0]), cap).sum()))


def watch(swap: HotSwap, poll_s: float) -> threading.Event:
    """Refresh `swap` every `poll_s` seconds in a thread of its own, until the event that is returned is set."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(poll_s):
            swap.refresh()

    threading.Thread(target=loop, name="alias-watcher", daemon=True).start()
    return stop
