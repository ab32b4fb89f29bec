"""Penchant's command line: ``penchant COMMAND ...``, ``penchant COMMAND --help``.

Only the module of the requested command is imported, and no engine before its arguments are parsed.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

from infra.commands.terminal import WRONG
from infra.suggestions import unknown


@dataclass(frozen=True)
class Command:
    """A command.

    Args:
        summary: one line.
        module: its `function` parses `sys.argv` and may return an exit status.
    """

    summary: str
    module: str
    function: str = "main"


GROUPS: Mapping[str, Mapping[str, Command]] = {
    "Look up": {
        "recipes": Command("the recipes, or everything about one", "infra.commands.lookup", "recipes"),
        "settings": Command("the settings of a stage or of the profile", "infra.commands.lookup", "settings"),
        "stages": Command("the stages, or everything about one", "infra.commands.lookup", "stages"),
        "tables": Command("the tables, or the columns of one", "infra.commands.lookup", "tables"),
    },
    "Data": {
        "planted-world": Command("generate reviews with known truth", "pipelines.landing.planted_world.__main__"),
        "download": Command("fetch a public data set and register it", "pipelines.tools.download"),
        "register": Command("register your own files as a data set", "pipelines.tools.register"),
        "erase": Command("delete users from every table and prove it", "pipelines.stages.erasure"),
    },
    "Run": {
        "run": Command("run one stage; --latest reads what the day has published", "infra.commands.run"),
        "retrain": Command("train a registered version again and compare", "ray_jobs.tools.retrain"),
        "rollback": Command("make an earlier version champion again", "ray_jobs.stages.rollback"),
        "clean-up": Command("remove what no kept version needs", "ray_jobs.stages.clean_up"),
        "reproduce": Command("measure published results again", "ray_jobs.reproduction.__main__"),
    },
    "Use": {
        "serve": Command("answer requests over HTTP with the champion", "ray_jobs.serving.__main__"),
        "page": Command("the page where sentences steer recommendations", "ray_jobs.serving.page.__main__"),
        "steered": Command("steer some users' recommendations in the terminal", "ray_jobs.tools.steered"),
        "webhook": Command("have MLflow announce versions and promotions", "ray_jobs.tools.promotion_webhook"),
    },
    "Inspect": {
        "report": Command("a finished day: users, metrics, version, counts", "ray_jobs.tools.report"),
        "probe": Command("a version's NDCG@10 on a fixed probe", "ray_jobs.tools.fixed_test_set"),
        "ties": Command("effect of the order of simultaneous reviews on metrics", "ray_jobs.tools.tie_report"),
        "language-sample": Command(
            "reviews with what the language model read in them", "pipelines.tools.language_sample"
        ),
        "truth": Command("how much of a planted world's truth was found", "pipelines.tools.truth_report"),
        "cost": Command("what a full pass of the language model would cost", "pipelines.tools.cost_projection"),
    },
    "Machine": {
        "doctor": Command("check that this machine can run Penchant", "infra.doctor"),
        "services": Command("up, down or status of the local services", "infra.services"),
        "demo": Command("the whole chain on generated reviews", "infra.demo"),
    },
}
COMMANDS: Mapping[str, Command] = {name: command for group in GROUPS.values() for name, command in group.items()}


def overview() -> str:
    """The text of ``penchant --help``."""
    width = max(map(len, COMMANDS))
    lines = ["usage: penchant COMMAND ...", "", "`penchant COMMAND --help` explains one."]
    for title, commands in GROUPS.items():
        lines += ["", title, *(f"  {name:<{width}}  {command.summary}" for name, command in commands.items())]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns 2 after one line if there is no such command or an argument is wrong."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    name, *rest = words
    if name not in COMMANDS:
        sys.stderr.write(f"penchant: {unknown('command', name, COMMANDS, 'penchant --help')}\n")
        return WRONG
    command = COMMANDS[name]
    # The command's parser takes its name and arguments from here.
    sys.argv = [f"penchant {name}", *rest]
    done = getattr(import_module(command.module), command.function)()
    return done if isinstance(done, int) else 0


if __name__ == "__main__":
    raise SystemExit(main())
