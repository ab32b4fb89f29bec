"""The scripts that spark-submit starts."""

import subprocess
import sys
from pathlib import Path

from pipelines.launch import stage
from schemas.stages import STAGES

FILE = Path(stage.__file__)


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(FILE), *arguments], capture_output=True, text=True, check=False)


def test_unknown_stage_lists_the_known_ones() -> None:
    done = started("train")
    assert done.returncode == 2
    assert "invalid choice: 'train'" in done.stderr
    assert all((name in done.stderr) == (stage.engine == "spark") for name, stage in STAGES.items() if name != "train")


def test_a_stage_gets_the_arguments_after_its_name() -> None:
    done = started("sequences", "--help")
    assert done.returncode == 0
    assert "Interactions and ordered histories" in done.stdout
    assert "--partition" in done.stdout
