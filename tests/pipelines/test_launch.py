"""What spark-submit starts."""

import subprocess
import sys
from pathlib import Path

from pipelines import launch
from pipelines.launch.stage import STAGES

FILE = Path(launch.__file__).with_name("stage.py")


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(FILE), *arguments], capture_output=True, text=True, check=False)


def test_unknown_stage_lists_the_known_ones() -> None:
    done = started("train")
    assert done.returncode == 2
    assert "invalid choice: 'train'" in done.stderr
    assert all(stage in done.stderr for stage in STAGES)


def test_a_stage_gets_the_arguments_after_its_name() -> None:
    done = started("sequences", "--help")
    assert done.returncode == 0
    assert "Interactions and ordered histories" in done.stdout
    assert "--partition" in done.stdout
