"""The packages that a registered model needs to load, pinned to this environment."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from infra.errors import SettingError

REQUIREMENTS = ("mlflow", "torch", "numpy", "pandas", "pyarrow", "pydantic", "safetensors")
"""Packages for every recipe; `Recommender.packages` names further ones."""


def pip_requirements(packages: Sequence[str]) -> list[str]:
    """`REQUIREMENTS` and `packages`, with their versions without local labels (``+cpu``).

    Raises:
        SettingError: one of them is not installed.
    """
    found = []
    for name in (*REQUIREMENTS, *packages):
        try:
            found.append(f"{name}=={version(name).split('+', 1)[0]}")
        except PackageNotFoundError as error:
            raise SettingError(
                f"the package {name}, which the recipe needs, is not installed: name it in the extra ray in "
                "pyproject.toml, and install penchant[ray] where Ray runs"
            ) from error
    return found
