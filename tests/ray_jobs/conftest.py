import shutil
import sys
from dataclasses import replace

import pytest
from mlflow import MlflowClient
from planted_warehouse import Warehouse, make_warehouse

from infra.settings import load_settings


@pytest.fixture(autouse=True)
def _one_thread():
    """A test that leaves PyTorch with more threads would change the last bits of those after it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def ray_session():
    """One Ray for the whole test session, shut down at its end."""
    import ray

    from ray_jobs.cluster import connect

    connect()
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def planted(tmp_path_factory) -> Warehouse:
    """The planted warehouse; do not write into it (`warehouse` is a copy to write into)."""
    return make_warehouse(tmp_path_factory.mktemp("planted"))


@pytest.fixture
def warehouse(planted, tmp_path, monkeypatch) -> Warehouse:
    """A fresh copy of the planted warehouse that `load_settings` finds."""
    folder = tmp_path / "home"
    shutil.copytree(planted.settings.home, folder)
    environment = {
        name: value.replace(planted.settings.home, str(folder)) for name, value in planted.environment.items()
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    moved = {
        name: replace(handoff, uri=handoff.uri.replace(planted.settings.home, str(folder)))
        for name, handoff in planted.handoffs.items()
    }
    return Warehouse(load_settings(), environment, moved)


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory):
    """MLflow's database with its tables made once; each test works on a copy."""
    path = tmp_path_factory.mktemp("registry") / "mlflow.db"
    uri = f"sqlite:///{path}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        MlflowClient(uri, uri).search_experiments()
    return path
