"""Move aliases of registered models, and record when each version was champion."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from infra.leases import Lease, lease
from infra.settings import Settings
from schemas.model_versions import CHAMPION, SINCE_TAG, UNTIL_TAG


class AliasConflict(RuntimeError):
    """Another process moved the alias at the same time; the stage can be run again."""


@contextmanager
def promotion_lock(settings: Settings, name: str) -> Iterator[Lease]:
    """Hold the lock on the aliases of the model `name` among processes that share this state.

    Processes with another state are noticed by `point_alias`.

    Raises:
        StorageError: at the end, if somebody else took the lock over meanwhile.
    """
    with lease(settings.shared("locks", f"{name}.lock")) as held:
        assert held is not None
        yield held
        held.check()


def version_at(client: MlflowClient, name: str, alias: str) -> str | None:
    """The version that `alias` points at, or None."""
    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def point_alias(client: MlflowClient, name: str, alias: str, version: str) -> None:
    """Move `alias` to `version` and read it back, because the registry has no compare-and-set.

    Raises:
        AliasConflict: it points to another version afterwards.
    """
    if version_at(client, name, alias) == version:
        return
    client.set_registered_model_alias(name, alias, version)
    found = version_at(client, name, alias)
    if found != version:
        raise AliasConflict(
            f"alias {alias!r} of {name} was set to version {version} and now points at {found}: another process "
            "moves aliases, too. Let one register stage run at a time, then run this one again."
        )


def record_change(client: MlflowClient, name: str, before: str | None, after: str) -> None:
    """Tag `before` with the time at which it stopped being champion, and `after` with that at which it became it."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    if before is not None and before != after:
        client.set_model_version_tag(name, before, UNTIL_TAG, now)
    if UNTIL_TAG in client.get_model_version(name, after).tags:
        client.delete_model_version_tag(name, after, UNTIL_TAG)
    client.set_model_version_tag(name, after, SINCE_TAG, now)


def champion_of(client: MlflowClient, name: str) -> str | None:
    """The version that is champion, or None."""
    return version_at(client, name, CHAMPION)
