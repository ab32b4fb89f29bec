import multiprocessing
import time

import pytest
from mlflow import MlflowClient

from ray_jobs.registry import aliases, runs
from ray_jobs.registry.aliases import AliasConflict


def _hold(settings, told):
    with aliases.promotion_lock(settings, "m"):
        told.set()
        time.sleep(60)


def test_an_alias_is_read_back(settings, tmp_path):
    client = runs.connect(settings)
    client.create_registered_model("m")
    for _ in range(2):
        client.create_model_version("m", str(tmp_path))
    assert aliases.version_at(client, "m", "champion") is None
    assert aliases.version_at(client, "nobody", "champion") is None
    aliases.point_alias(client, "m", "champion", "1")
    assert aliases.version_at(client, "m", "champion") == "1"

    class Rival(MlflowClient):
        def set_registered_model_alias(self, name, alias, version):
            super().set_registered_model_alias(name, alias, version)
            super().set_registered_model_alias(name, alias, "1")

    rival = Rival(settings.mlflow.tracking_uri, settings.mlflow.tracking_uri)
    with pytest.raises(AliasConflict, match="set to version 2 and now points at 1"):
        aliases.point_alias(rival, "m", "champion", "2")


def test_promotion_lock_at_a_time_and_a_killed_one_holds_nothing(settings):
    fork = multiprocessing.get_context("fork")
    told, second = fork.Event(), fork.Event()
    first = fork.Process(target=_hold, args=(settings, told))
    first.start()
    assert told.wait(10)
    other = fork.Process(target=_hold, args=(settings, second))
    other.start()
    assert not second.wait(0.3), "the second waits"
    first.kill()
    assert second.wait(10)
    other.kill()
    for process in (first, other):
        process.join(10)
