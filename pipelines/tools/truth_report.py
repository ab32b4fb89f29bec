"""Print how much of a planted world's truth the language stages recovered, beside bags of words and chance.

The tool reads the tables reviews, items, sequences, preferences, review_summaries, denoised_sequences and quarantine of
a partition, and the folder truth/ of the world. Preferences are compared with the reasons in the reviews of their
window and with the planted tastes. Recall is given for all reasons, for those that the stars allow the stage to request
(likes from four stars, dislikes up to two), and for the latter without prices, which preferences never mention. Scores
of titles are compared with the planted noise. Shares are from 0 to 1; "+-" is a standard error.
"""

import argparse
import datetime as dt
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra import storage
from infra.commands.terminal import command
from infra.settings import load_settings
from pipelines.landing.planted_world.truth import read_truth
from pipelines.stages.preferences import PreferencesSettings
from schemas.names import DATASET, DAY
from schemas.sections import stage_settings


def render(report: Mapping[str, Any]) -> str:
    """The report as text tables."""
    sections = []
    if "preferences" in report:
        sections.append(_preference_table(report["preferences"]))
    if "summaries" in report:
        sections.append(_summary_table(report["summaries"]))
    if "noise" in report:
        sections.append(_noise_table(report["noise"], report["corrections"]))
    return "\n\n".join("\n".join(line.rstrip() for line in section) for section in sections)


def _preference_table(found: Mapping[str, Any]) -> list[str]:
    names = ("said", "precision", "precision_taste", "recall", "recall_asked", "recall_asked_no_price")
    lines = [
        f"Preferences at {found['positions']} positions ({found['lines_naming_nothing']} of {found['lines']} lines "
        "name no planted attribute)",
        _row("", "", "said", "precision", "of taste", "recall", "asked", "no price"),
    ]
    for method, sides in found["methods"].items():
        lines += [_row(method, f"{side}s", *(values[name] for name in names)) for side, values in sides.items()]
    if found["missed"]:
        missed = ", ".join(f"{cause} {count}" for cause, count in found["missed"].items())
        lines.append(f"  requested and missed by the stage: {missed}")
    return lines


def _summary_table(found: Mapping[str, Any]) -> list[str]:
    lines = [f"Last summaries of {found['users']} users", _row("", "", "said", "precision", "", "", "asked")]
    for side in ("like", "dislike"):
        values = found[side]
        lines.append(_row("stage", f"{side}s", values["said"], values["precision"], "", "", values["recall_asked"]))
    return lines


def _noise_table(noise: Mapping[str, Any], edits: Mapping[str, Any]) -> list[str]:
    labels = {
        "precision": "precision: edits that hit noise",
        "recall": "recall: noise that was edited",
        "suits_taste": "replacements that suit the taste there",
        "right_category": "replacements of a liked category",
        "meant": "edits of noise that put in just the item that was meant",
    }
    return [
        f"Noise at {edits['scored']} scored positions ({_text(edits['noise'])} of them noise; the stage's mean doubt "
        f"is {_text(edits['doubt'])})",
        _row("", "", "AUC", "+-", "av. prec.", "+-", "P @ edits", "R @ edits"),
        *(_row(method, "", *values.values()) for method, values in noise.items()),
        "",
        f"Corrections: {edits['suspects']} suspects, {edits['edits']} edits, {_text(edits['edits_per_100'])} per 100 "
        "positions",
        *(f"  {label:<60} {_text(edits[name])}" for name, label in labels.items()),
    ]


def _row(method: str, side: str, *values: float | str | None) -> str:
    return f"  {method:<22}{side:<9}" + "".join(f"{_text(value):>11}" for value in values)


def _text(value: float | str | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Read, measure, print, and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=DATASET, default="planted-world", help="name of the registered data set")
    parser.add_argument("--partition", type=DAY, required=True, help="day to report on, e.g. 2026-01-31")
    parser.add_argument("--truth", type=Path, required=True, help="folder truth/ that the world was written with")
    parser.add_argument(
        "--out", type=Path, help="JSON file; default: truth--PARTITION.json beside the data docs' reports"
    )
    parser.add_argument("--window", type=int, help="preferences.window of the run; default: the profile's")
    parser.add_argument("--seed", type=int, default=7, help="of the random baselines")
    given = parser.parse_args(argv)
    day = dt.date.fromisoformat(given.partition)
    settings = load_settings()
    window = given.window or stage_settings(PreferencesSettings, settings).window
    truth = read_truth(given.truth)
    from pipelines.recovery.histories import read_warehouse
    from pipelines.recovery.report import truth_report
    from pipelines.spark import tool_session

    with tool_session("truth_report", settings, given.dataset) as spark:
        found = read_warehouse(spark, settings, given.dataset, day, truth)
    report = truth_report(found, truth, window=window, seed=given.seed)
    page = storage.join(settings.data_docs_dir(given.dataset), "reports", f"truth--{given.partition}.json")
    out = page if given.out is None else str(given.out)
    storage.write_json(out, {"dataset": given.dataset, "partition": given.partition, **report})
    sys.stdout.write(f"{render(report)}\n\nwritten to {out}\n")


if __name__ == "__main__":
    main()
