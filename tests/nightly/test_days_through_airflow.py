"""Four simulated days through a real Airflow: late reviews, a file that comes twice, and a day that would do harm."""

import json
import os
import subprocess
import sys

import pytest

from infra.settings import REPOSITORY
from tests.chain.free_ports import free_ports

SIZES = ["--users=370", "--items=60", "--accounts=500", "--probes=200"]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    home = tmp_path_factory.mktemp("simulation") / "home"
    names = ("AIRFLOW_PORT", "MLFLOW_PORT", "RAY_DASHBOARD_PORT", "RAY_GCS_PORT", "LLM_PORT", "PAGE_PORT")
    ports = {name: str(port) for name, port in zip(names, free_ports(len(names)), strict=True)}
    environment = {**os.environ, **ports, "PENCHANT_SPARK__JARS_DIR": str(REPOSITORY / ".penchant" / "jars")}
    argv = [sys.executable, "-m", "tests.simulated", "--days=4", f"--home={home}", "--", *SIZES]
    done = subprocess.run(argv, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (home / "simulation.json").exists(), done.stdout[-5000:] + done.stderr[-5000:]
    made = json.loads((home / "simulation.json").read_text())
    assert len(made) == 4, done.stdout[-5000:] + done.stderr[-5000:]
    return {one["kind"]: one for one in made}


def test_the_first_day_is_promoted_and_the_next_goes_on_from_it(outcomes):
    first, late = outcomes["first load"], outcomes["late"]
    assert first["decision"] == "promoted"
    assert min(first["steps"], late["steps"]) > 0
    assert 0 < late["calls"] < first["calls"], "only what is new is asked"
    assert "continues from version 1" in late["work"]
    assert "of champion version 1" in late["reason"]


def test_every_day_has_its_report_whatever_it_skipped(outcomes):
    assert all("day_report" in one["reports"] for one in outcomes.values())
    assert not any("steerability" in one["reports"] for one in outcomes.values())


def test_a_file_that_comes_twice_costs_nothing(outcomes):
    again = outcomes["repeated"]
    assert (again["calls"], again["steps"], again["decision"]) == (0, 0, "unchanged")
    assert again["rows"] == outcomes["late"]["rows"]
    assert "nothing changed since 2026-03-02, whose version 2 stays as judged" in again["work"]


def test_the_bad_day_is_refused_with_the_number_that_failed(outcomes):
    bad = outcomes["bad"]
    assert bad["rows"] > 10 * outcomes["late"]["rows"]
    assert bad["decision"] == "kept"
    assert "among users from its day" in bad["reason"]
    assert bad["challenger"] > bad["champion"], "over everybody, the accounts included, it looks better"
    assert bad["challenger_probe"] < 0.9 * bad["probe"], "and would have done harm"
    assert bad["probe"] == outcomes["repeated"]["probe"], "the champion stayed"
