"""A registry with versions of an untrained TIGER whose titles name their version, and the processes that serve them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import requests
import torch
from mlflow import MlflowClient

from infra.settings import load_settings
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recipes.generative.tiger import Tiger, TigerSettings
from ray_jobs.recommenders.bundle import save_bundle
from ray_jobs.registry import runs
from ray_jobs.registry.model import input_example, log_model
from ray_jobs.registry.users import User

PER_CODE = 8


def make_registry(name: str, items: int, sizes: TigerSettings, versions: int = 2) -> MlflowClient:
    """Register `versions` versions of a model in the registry of the settings; alias ``champion`` is version 1."""
    settings = load_settings()
    client = runs.connect(settings)
    client.create_registered_model(name)
    names = tuple(f"i{n}" for n in range(items))
    codes = np.stack([np.arange(items) // PER_CODE, np.arange(items) % PER_CODE], axis=1)
    example = input_example(User("u", ["i1"], None, [0], 1))
    experiment = client.create_experiment("serving")
    for version in range(1, versions + 1):
        torch.manual_seed(version)
        titles = tuple(f"{item} of version {version}" for item in names)
        model = Tiger(sizes, Catalogue(names, titles, names, codes, (-(-items // PER_CODE), PER_CODE)))
        bundle = save_bundle(Path(settings.home) / f"bundle-{version}", model, {})
        run_id = client.create_run(experiment).info.run_id
        model_id = log_model(run_id, bundle, example, model.packages(sizes, steered=False), {})
        client.create_model_version(name, f"models:/{model_id}", model_id=model_id)
    client.set_registered_model_alias(name, "champion", "1")
    return client


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(command: list[str], health: str, log: Path) -> Iterator[int]:
    """Process id of a server that answers `health` with 200; it is ended afterwards."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, "PATH": path}, start_new_session=True
        )
    try:
        end = time.monotonic() + 240
        while not _answers(health):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.3)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).ok
    except requests.RequestException:
        return False
