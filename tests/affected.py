"""Lists the tests that a change can affect: ``python -m tests.affected [--since REVISION]``, or `make affected`.

Changes are relative to REVISION, by default the last commit, and include untracked files. A test file is affected if
it, a test module that it imports, or a `conftest.py` above it changed or depends on a changed module. The loaders of
recipes depend on every recipe. The chain and the test of entry points depend on every module. If a module was deleted,
every test is affected.
"""

import argparse
import ast
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import grimp

from infra.settings import REPOSITORY
from schemas.recipes import RECIPES
from schemas.sections import SECTIONS
from schemas.stages import STAGES, TABLE_NAMES

ROOMS = ("dags", "infra", "pipelines", "ray_jobs", "schemas")
EVERYTHING = ("Makefile", "constraints.txt", "pyproject.toml", "tests/conftest.py", "tests/recipe_budget.py")
STARTS = {
    "pipelines.launch.stage": "pipelines.stages",
    "infra.spark_driver": "pipelines.launch",
    "infra.services": "ray_jobs.serving.page",
}
"""Packages whose modules a module starts by name."""
TESTS = REPOSITORY / "tests"
LOADERS = {"recommender": "ray_jobs.recommenders.bundle", "tokenizer": "ray_jobs.tokenizers.stored"}
"""Modules that load recipes by name."""
PAGE = "README.md"
"""Name of the pages of the manual."""
PAGES_TEST = TESTS / "infra" / "test_pages.py"
"""Reads every page, and every class of settings by name."""
SETTINGS = {
    address.partition(":")[0]
    for address in (*SECTIONS.values(), *(f"ray_jobs.recipes.{recipe.settings}" for recipe in RECIPES.values()))
}
"""Modules with classes of settings."""


def changed_files(since: str) -> set[str]:
    """Paths, relative to the repository, of files that differ from the revision `since` or are new."""
    git = ("git", "-C", str(REPOSITORY))
    found: set[str] = set()
    for words in (
        ["diff", "--name-only", "--no-renames", "-z", since],
        ["ls-files", "-z", "--others", "--exclude-standard"],
    ):
        found |= set(subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout.split("\0"))
    return found - {""}


def module_of(path: str) -> str:
    """The module at a path of the repository; for other files the package that contains them."""
    words = Path(path).with_suffix("").parts
    return ".".join(words if path.endswith(".py") and words[-1] != "__init__" else words[:-1])


def affected_modules(changed: Collection[str]) -> set[str]:
    """Modules that are in `changed` or depend on one that is."""
    graph = grimp.build_graph(*ROOMS, cache_dir=None)
    for recipe in RECIPES.values():
        module = f"ray_jobs.recipes.{recipe.implementation.partition(':')[0]}"
        graph.add_import(importer=LOADERS[recipe.kind], imported=module)
    for table in TABLE_NAMES:
        graph.add_import(importer="schemas.tables", imported=f"schemas.{table}")
    for stage in STAGES.values():
        starter = "pipelines.launch.stage" if stage.engine == "spark" else "ray_jobs.stages.__main__"
        graph.add_import(importer=starter, imported=stage.module.replace(".stages.", "."))
    for starter, package in STARTS.items():
        for module in graph.find_children(package):
            graph.add_import(importer=starter, imported=module)
    found: set[str] = set()
    for path in changed:
        if path.split("/")[0] in ROOMS and not path.endswith(PAGE):
            module = module_of(path)
            while module not in graph.modules:
                module = module.rpartition(".")[0]
            within = {module} if path.endswith(".py") else {module, *graph.find_descendants(module)}
            found |= within
            for one in within & graph.modules:
                found |= graph.find_downstream_modules(one)
    return found


def imports_of(path: Path) -> Iterator[str]:
    """Modules that a test names in its imports, or in a string that starts or patches one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.split(".")[0] in ROOMS:
            words = node.value.split(".")
            yield from (".".join(words[:length]) for length in range(2, len(words) + 1))


def affected_tests(changed: Collection[str]) -> list[str]:
    """Test files, relative to the repository, that the `changed` paths can affect; sorted."""
    files = [path for path in sorted(TESTS.rglob("*.py")) if not {"nightly", "bench"} & set(path.parts)]
    tests = [path for path in files if path.name.startswith("test_")]
    gone = [path for path in changed if path.endswith(".py") and not (REPOSITORY / path).exists()]
    if gone or set(changed) & set(EVERYTHING):
        return [str(path.relative_to(REPOSITORY)) for path in tests]
    modules = affected_modules(changed)
    named = {path: set(imports_of(path)) for path in files}
    touched = {path for path in files if str(path.relative_to(REPOSITORY)) in changed or named[path] & modules}
    if any(path.endswith(PAGE) or module_of(path) in SETTINGS for path in changed):
        touched.add(PAGES_TEST)
    if modules:
        touched |= {path for path in files if path.parent.name == "chain" or path.stem == "test_entry_points"}
    while True:
        stems = {path.stem for path in touched if not path.name.startswith("test_") and path.name != "conftest.py"}
        folders = {path.parent for path in touched if path.name == "conftest.py"}
        more = {path for path in files if named[path] & stems or folders & set(path.parents)} - touched
        if not more:
            return [str(path.relative_to(REPOSITORY)) for path in tests if path in touched]
        touched |= more


def main() -> None:
    """Print the affected tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--since", default="HEAD", help="revision to compare with, e.g. origin/main")
    sys.stdout.write("".join(f"{path}\n" for path in affected_tests(changed_files(parser.parse_args().since))))


if __name__ == "__main__":
    main()
