"""A registered model of every recipe loads and answers in a fresh environment made of its own requirements.txt."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.artifacts import download_artifacts

from infra.settings import load_settings
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recipes import recipe_class, settings_class
from ray_jobs.recommenders.bundle import save_bundle
from ray_jobs.recommenders.settings import RecipeSettings
from ray_jobs.registry import runs
from ray_jobs.registry.model import input_example, log_model
from ray_jobs.registry.users import User
from schemas.recipes import of_kind

ITEMS = 16
ADAPTED = "mendertok with adapters"
SMALL = {"width": 16, "layers": 1, "encoder_layers": 1, "heads": 1, "head_width": 16, "inner": 16}
ASK = """
import json, sys
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
row = {"history": ["i1", "i2"], "preference": "Prefers quiet gear", "times": [1, 2], "asked_at": 3}
rows = pd.DataFrame([row])
print(json.dumps(model.predict(rows, params={"k": 3})["item_ids"].tolist()[0]))
"""


def _settings(recipe: str) -> RecipeSettings:
    kind = settings_class(recipe.partition(" ")[0])
    known = kind.__dataclass_fields__
    wanted = {name: value for name, value in SMALL.items() if name in known}
    return kind(**wanted, **({"encoder_training": "lora"} if recipe == ADAPTED else {}))


@pytest.fixture(scope="module")
def environments(tmp_path_factory):
    """Makes an environment of requirements, once for each set of them."""
    made: dict[str, Path] = {}
    folder = tmp_path_factory.mktemp("environments")
    uv = str(Path(sys.executable).with_name("uv"))
    links = os.environ.get("PIP_FIND_LINKS")
    settings = {**os.environ, **({"UV_FIND_LINKS": links} if links else {})}

    def of(requirements: Path) -> Path:
        key = requirements.read_text()
        if key not in made:
            place = folder / str(len(made))
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(place)], check=True, env=settings)
            python = place / "bin" / "python"
            install = [uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(requirements)]
            subprocess.run(install, check=True, env=settings)
            made[key] = python
        return made[key]

    return of


@pytest.mark.parametrize("recipe", [*of_kind("recommender"), ADAPTED])
def test_a_registered_model_loads_with_its_own_requirements_alone(recipe, environments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
    for name in ("PENCHANT_MLFLOW__TRACKING_URI", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, uri)
    client = runs.connect(load_settings())
    names = tuple(f"i{n}" for n in range(ITEMS))
    titles = tuple(f"Quiet lamp {name}" for name in names)
    codes = np.stack([np.arange(ITEMS) // 4, np.arange(ITEMS) % 4], axis=1)
    torch.manual_seed(0)
    settings = _settings(recipe)
    model = recipe_class(recipe.partition(" ")[0])(settings, Catalogue(names, titles, titles, codes, (4, 4)))
    bundle = save_bundle(tmp_path / "bundle", model, {})
    run_id = client.create_run(client.create_experiment("nightly")).info.run_id
    example = input_example(User("u", ["i1"], None, [0], 1))
    model_id = log_model(run_id, bundle, example, model.packages(settings, steered=False), {})
    files = Path(download_artifacts(f"models:/{model_id}", dst_path=str(tmp_path / "model")))
    python = environments(files / "requirements.txt")
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [str(python), "-c", ASK, str(files)],
        cwd=tmp_path / "elsewhere", env=clean, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert len(answer) == 3
    assert not {"i1", "i2"} & set(answer)
