"""The served model version, and its replacement when the alias moves."""

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
from ray_jobs.serving.answering import Job, LoadedVersion, answer
from ray_jobs.serving.parsing import RecommendRequest
from schemas.errors import DataError

_LOG = logging.getLogger(__name__)
_LISTED = 10
"""Items per trial request; every recipe lists as many if the catalogue has them."""


class Source(Protocol):
    """A source of model versions."""

    def newest(self) -> str:
        """The version that should be served, ``<name>/<number>``."""

    def load(self, version: str) -> Bundle:
        """Load that version."""


class RegistrySource:
    """The version of a registered model that an alias points at."""

    def __init__(self, tracking_uri: str, model_name: str, alias: str) -> None:
        mlflow.set_tracking_uri(tracking_uri)
        mlflow.set_registry_uri(tracking_uri)
        self._client = MlflowClient(tracking_uri, tracking_uri)
        self._reference = f"{model_name}@{alias}"

    def newest(self) -> str:
        """Resolve the alias.

        Raises:
            SettingError: there is no such alias.
        """
        found = resolve(self._client, self._reference)
        return f"{found.name}/{found.version}"

    def load(self, version: str) -> Bundle:
        """Download and load a version; the downloaded copy is deleted."""
        with tempfile.TemporaryDirectory(prefix="penchant-serving-") as folder:
            return load_bundle(download_bundle(resolve(self._client, version), folder))


@dataclass(frozen=True)
class _Broken:
    version: str
    problem: str
    again_at: float


class HotSwap:
    """Holds the served version and replaces it while requests run.

    `live` is read once per request. A new version is loaded and answers trial requests before `live` changes, so no
    request waits for a load or gets a version that cannot answer. Requests that began on the old version end on it.
    `swaps`, `load_failures` and `registry_failures` count what has happened since the start.

    Args:
        retry_s: seconds until a version that failed is tried again; another version is tried at once.

    Raises:
        Exception: the first version cannot be loaded: there is nothing to serve instead.
    """

    def __init__(self, source: Source, retry_s: float) -> None:
        self._source = source
        self._retry_s = retry_s
        self._broken: _Broken | None = None
        self.swaps = self.load_failures = self.registry_failures = 0
        self.problem: str | None = None
        self.live = self._prepare(source.newest())
        self.checked = time.time()

    def refresh(self) -> None:
        """Replace the version if the source names another one; `problem` says what went wrong."""
        try:
            wanted = self._source.newest()
        except Exception as error:
            self.registry_failures += 1
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
            self.swaps += 1
        except Exception as error:
            self.load_failures += 1
            problem = f"version {wanted} does not load, {self.live.version} stays: {type(error).__name__}: {error}"
            _LOG.exception(problem)
            self._broken = _Broken(wanted, problem, time.monotonic() + self._retry_s)

    def _prepare(self, version: str) -> LoadedVersion:
        live = LoadedVersion(version, self._source.load(version), time.time())
        _try(live)
        return live


def _try(live: LoadedVersion) -> None:
    """Send trial requests to a version, with a preference and without.

    Raises:
        DataError: a list has fewer different catalogue items than were requested.
        FloatingPointError: a score is not finite.
    """
    bundle = live.bundle
    k = _listed(bundle)
    for history in (bundle.catalogue.item_ids[:1], bundle.catalogue.item_ids[-_LISTED:]):
        for preference in (None, "Something quiet."):
            given = {"history": history, "preference": preference, "times": tuple(range(len(history)))}
            trial = RecommendRequest(given, k=k, exclude_seen=False)
            (found,) = answer([Job(live, trial)])
            if isinstance(found, Exception):
                raise found
            listed = set(found["item_ids"]) & bundle.catalogue.index.keys()
            if len(listed) < k:
                raise DataError(
                    f"{live.version} lists {len(listed)} different catalogue items where {k} were requested"
                )


def _listed(bundle: Bundle) -> int:
    """The shortest valid list for k = `_LISTED`: a small catalogue or a cap per first code makes it shorter."""
    catalogue, cap = bundle.catalogue, getattr(bundle.settings, "max_per_first_code", 0)
    if not cap or catalogue.codes is None:
        return min(_LISTED, len(catalogue))
    return min(_LISTED, int(np.minimum(np.bincount(catalogue.codes[:, 0]), cap).sum()))


def watch(swap: HotSwap, poll_s: float) -> threading.Event:
    """Refresh `swap` every `poll_s` seconds in a thread, until the returned event is set."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(poll_s):
            swap.refresh()

    threading.Thread(target=loop, name="alias-watcher", daemon=True).start()
    return stop
