"""`make reproduce` is killed in the middle of an epoch: the same command goes on, to the same result."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import torch

from infra.settings import REPOSITORY

USERS, ITEMS = 120, 200
OVERRIDES = {
    "sasrec.epochs": 2, "sasrec.width": 8, "sasrec.negatives": 16, "sasrec.batch_size": 4, "sasrec.evaluate_every": 1,
    "sasrec.crop": 2,
}  # fmt: skip


def start(folder, home):
    """The command in a process of its own, whose training writes a checkpoint after every step."""
    environment = {
        **os.environ,
        "PENCHANT_HOME": str(home),
        "PENCHANT_RAY__STORAGE": str(home / "ray"),
        "PENCHANT_RAY__CHECKPOINT_S": "0",
    }
    command = [sys.executable, "-m", "ray_jobs.reproduction", "--folder", str(folder), "--recipes", "sasrec"]
    return subprocess.Popen(
        [*command, "--cpus", "1", "--overrides", json.dumps(OVERRIDES)],
        env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finished(folder, home):
    process = start(folder, home)
    out, _ = process.communicate(timeout=900)
    assert process.returncode == 0, out[-4000:]
    (path,) = (home / "reproduction").glob("*.json")
    return path


def test_a_killed_command_goes_on_to_the_same_result(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(rng.integers(ITEMS) + np.arange(rng.integers(5, 9))) % ITEMS for _ in range(USERS)]
    (tmp_path / "beauty.txt").write_text(
        "\n".join(f"{user} {' '.join(map(str, row))}" for user, row in enumerate(rows))
    )

    cut = start(tmp_path, tmp_path / "cut")
    while not (states := sorted((tmp_path / "cut" / "ray").glob("*/checkpoint_*/state.pt"))):
        assert cut.poll() is None, cut.communicate()
        time.sleep(0.05)
    os.kill(cut.pid, signal.SIGKILL)
    cut.communicate(timeout=120)
    states = sorted((tmp_path / "cut" / "ray").glob("*/checkpoint_*/state.pt")) or states
    state = torch.load(states[-1], weights_only=True)
    assert state["batch"] > 0, "in the middle of an epoch"
    assert not list((tmp_path / "cut" / "reproduction").glob("*.json"))

    resumed, whole = finished(tmp_path, tmp_path / "cut"), finished(tmp_path, tmp_path / "whole")
    assert resumed.name == whole.name
    found, expected = (json.loads(path.read_text()) for path in (resumed, whole))
    for result in (found, expected):
        for name in ("seconds", "processor_s", "peak_mb"):
            assert result.pop(name) > 0
        for record in result["records"]:
            record.pop("seconds")
    assert found == expected
    weights = [torch.load(path.with_suffix(".pt"), weights_only=True) for path in (resumed, whole)]
    assert all((weights[0][name] == tensor).all() for name, tensor in weights[1].items())
