"""What the serving benches share: a registry, the server under test, and clients."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from mlflow import MlflowClient

from ray_jobs.recipes.generative.tiger import TigerSettings
from tests.ray_jobs.served_registry import free_port, make_registry, running


@contextmanager
def registry(dataset: str, items: int) -> Iterator[tuple[MlflowClient, Path]]:
    """A registry with two versions of an untrained TIGER, and its folder, which is the working directory."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        os.chdir(folder)
        os.environ.update(PENCHANT_HOME=folder, PENCHANT_MLFLOW__TRACKING_URI=uri, MLFLOW_TRACKING_URI=uri)
        os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
        yield make_registry(f"penchant-{dataset}", items, TigerSettings()), Path(folder)


@contextmanager
def penchant_serve(dataset: str, *flags: str) -> Iterator[tuple[int, int]]:
    """Process id and port of `penchant serve`, which looks at the alias twice a second; its log is ``ray.log``."""
    port = free_port()
    command = [sys.executable, "-m", "ray_jobs.serving", "--dataset", dataset, "--port", str(port), "--poll-s", "0.5"]
    with running([*command, *flags], f"http://127.0.0.1:{port}/health", Path("ray.log")) as process:
        yield process, port


def script(name: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a script of this folder, which prints a line of JSON for `result`."""
    command = [sys.executable, str(Path(__file__).with_name(name)), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def clients(port: int, kind: str, threads: int, seconds: float, items: int) -> subprocess.Popen[str]:
    """Start `load_client`."""
    return script("load_client.py", f"127.0.0.1:{port}", kind, threads, seconds, items)


def result(process: subprocess.Popen[str]) -> dict:
    """What a script of `script` printed."""
    out, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(out)


def quantile(ascending: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    return ascending[min(int(share * len(ascending)), len(ascending) - 1)]
