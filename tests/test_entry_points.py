"""Every entry point has ``--help`` and refuses wrong settings without loading an engine."""

import json
import runpy
import subprocess
import sys
import tomllib
from importlib import import_module
from types import SimpleNamespace

import pytest

from infra.command_line import COMMANDS
from infra.settings import REPOSITORY
from schemas.stages import STAGES
from tests.bench.bench_start import entry_points

ENGINES = (
    *("airflow", "deltalake", "faiss", "great_expectations", "matplotlib", "mlflow", "numpy", "openai", "pandas"),
    *("peft", "py4j", "pyspark", "ray", "scipy", "sklearn", "torch", "transformers"),
)
RUN_EACH = """
import contextlib, io, json, os, runpy, sys

def outcome(module, argv, environment):
    os.environ.update(environment)
    sys.argv = [module, *argv]
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code or 0
            if isinstance(code, str):
                said.write(code)
                code = 1
    return {"code": code, "said": said.getvalue(), "loaded": sorted({name.partition(".")[0] for name in sys.modules})}

for line in sys.stdin:
    reading, writing = os.pipe()
    if not os.fork():
        os.write(writing, json.dumps(outcome(*json.loads(line))).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        print(answer.read() or "null", flush=True)
    os.wait()
"""
NAMED = {
    "clean_up": ("clean_up.keep_versions", "many"),
    "denoised_sequences": ("denoised_sequences.contexts", "no number"),
    "preferences": ("review_lines.max_users", "all"),
    "register": ("promotion.margin", "wide"),
    "rollback": ("", ""),
    "day_report": ("", ""),
    "train": ("mendertok.epochs", "some"),
}
"""By stage, a setting and a value that it refuses; else a setting that does not exist in the stage's own section."""


ENTRY_POINTS = entry_points(REPOSITORY)
STARTED = [
    ("pipelines.launch.stage" if one.engine == "spark" else "ray_jobs.stages", one.name) for one in STAGES.values()
]
each_stage = pytest.mark.parametrize(("module", "stage"), STARTED)


@pytest.fixture(scope="module")
def run_each():
    """Run modules as ``python -m`` does, each in a fork of an interpreter that has loaded nothing."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_EACH], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def run(module, *argv, **environment):
        print(json.dumps([module, argv, environment]), file=process.stdin, flush=True)
        found = json.loads(process.stdout.readline())
        assert found is not None, f"{module} {argv} ended with an error; run it by hand"
        return found

    yield run
    process.stdin.close()
    process.wait()


def test_there_are_entry_points():
    assert {
        "infra.demo",
        "ray_jobs.stages",
        "pipelines.launch.stage",
        "pipelines.tools.register",
        "ray_jobs.tools.retrain",
    } <= set(ENTRY_POINTS)


@pytest.mark.parametrize("words", [*((name,) for name in ENTRY_POINTS), *STARTED])
def test_help_loads_no_engine(run_each, words):
    found = run_each(*words, "--help")
    assert found["code"] == 0, found["said"]
    assert "usage:" in found["said"]
    assert len(found["said"]) > 150, "it says what it is for"
    assert not set(found["loaded"]) & set(ENGINES)


OWN = [name for name, command in COMMANDS.items() if command.module.startswith("infra.commands.")]


@pytest.mark.parametrize("command", ["register", "erase", "rollback", "clean-up", *OWN])
def test_a_command_explains_itself_without_an_engine(run_each, command):
    found = run_each("infra.command_line", command, "--help")
    assert found["code"] == 0, found["said"]
    assert f"usage: penchant {command}" in found["said"]
    assert not set(found["loaded"]) & set(ENGINES)


def test_every_other_command_is_the_main_function_of_an_entry_point():
    others = {name: command for name, command in COMMANDS.items() if name not in OWN}
    for name, command in others.items():
        assert command.module.removesuffix(".__main__") in ENTRY_POINTS or ".stages." in command.module, name
        assert command.function == "main", name


def test_the_command_line_loads_nothing_but_itself(run_each):
    found = run_each("infra.command_line", "--help")
    assert all(f"  {command} " in found["said"] for command in COMMANDS)
    assert not set(found["loaded"]) & {"pydantic", "pyarrow", "schemas", "dags", "pipelines", "ray_jobs"}


@pytest.mark.parametrize(
    ("argv", "near"),
    [
        (["registr"], "did you mean register?"),
        (["recipes", "tigre"], "did you mean tiger?"),
        (["tables", "review"], "did you mean reviews"),
        (["tables", "nothing-like-it"], "`penchant tables` lists them"),
        (["tables", "--nme=reviews"], "unrecognized arguments"),
    ],
)
def test_a_wrong_name_is_refused_in_a_line_that_has_the_right_one(run_each, argv, near):
    found = run_each("infra.command_line", *argv)
    assert (found["code"], found["said"].count("\n")) == (2, 1), found["said"]
    assert near in found["said"]


def test_the_package_installs_the_command_line():
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["penchant"].partition(":")
    assert callable(getattr(import_module(module), function))


@each_stage
def test_a_wrong_setting_is_refused_before_an_engine_is_loaded(run_each, module, stage):
    setting, value = NAMED.get(stage, (f"{stage}.nonsense", 1))
    request = ["--dataset=shop", "--partition=2026-01-31"]
    if setting:
        found = run_each(module, stage, *request, f"--overrides={json.dumps({setting: value})}")
        assert found["code"] == 2, found["said"]
        assert setting in found["said"]
        assert not set(found["loaded"]) & set(ENGINES)
    found = run_each(module, stage, *request, PENCHANT_MLFLOW__NONSENSE="1")
    assert found["code"] == 2, found["said"]
    assert "mlflow.nonsense" in found["said"].lower()
    assert not set(found["loaded"]) & set(ENGINES)


def test_a_day_that_is_none_is_refused_in_a_sentence(run_each):
    found = run_each("ray_jobs.stages", "train", "--dataset=shop", "--partition=31.1.26")
    assert (found["code"], found["said"].count("\n")) == (2, 1)
    assert "'31.1.26' is not a day such as 2026-01-31" in found["said"]


@pytest.mark.parametrize("room", ["schemas", "infra"])
def test_no_module_of_a_neutral_room_imports_an_engine(room):
    names = [path.relative_to(REPOSITORY).with_suffix("").parts for path in (REPOSITORY / room).rglob("*.py")]
    code = "import sys\n" + "".join(f"import {'.'.join(words)}\n" for words in names if "__" not in words[-1])
    # The contracts' types are pyarrow's, which loads numpy.
    code += f"print(*{set(ENGINES) - {'numpy'}} & {{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("entry", "work", "name"),
    [
        ("pipelines.launch.stage sequences", "pipelines.sequences", "run"),
        ("ray_jobs.stages evaluate", "ray_jobs.evaluate", "run"),
        ("ray_jobs.tools.report", "ray_jobs.days.printed", "report"),
    ],
)
def test_a_value_error_of_a_library_keeps_its_traceback(entry, work, name, monkeypatch):
    """A stage of Spark, one of Ray and a tool; `work` is what each does once its settings are read."""

    def break_down(*_):
        return list(zip((1, 2), (1,), strict=True))

    monkeypatch.setitem(sys.modules, work, SimpleNamespace(**{name: break_down}))
    entry, *words = entry.split()
    monkeypatch.setattr(sys, "argv", [entry, *words, "--dataset=shop", "--partition=2026-01-31"])
    monkeypatch.delitem(sys.modules, entry, raising=False)
    with pytest.raises(ValueError, match="is shorter than argument 1"):
        runpy.run_module(entry, run_name="__main__")
