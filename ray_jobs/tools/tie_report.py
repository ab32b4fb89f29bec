"""Measure what models lose if the order inside ties is shuffled.

penchant ties --dataset planted-world --partition 2026-01-31 --recipes sasrec,popularity

Each recipe is trained on the original histories and on histories with shuffled ties, and evaluated on the test split of
the same histories, because a tie across the split changes which item is held out. The report has means over users with
95 % confidence intervals and paired differences, and is also logged to MLflow. Recipes that generate semantic ids are
refused: their tokenizer would have to be fitted on each version.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from infra.commands.terminal import command
from infra.errors import SettingError
from infra.settings import Settings, load_settings
from ray_jobs.data.settings import training_data_settings
from schemas.names import DATASET, DAY
from schemas.recipes import Need, of_kind
from schemas.sections import settings_of
from schemas.stage_request import StageRequest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ray_jobs.data.histories import Histories
    from ray_jobs.evaluation.metrics import Interval, Paired

STAGE = "tie_report"
METRICS = ("recall_10", "ndcg_10")


@dataclass(frozen=True, kw_only=True)
class TieRow:
    """One metric of one recipe on both versions.

    Args:
        lost: the paired difference original - shuffled.
    """

    recipe: str
    metric: str
    as_is: "Interval"
    shuffled: "Interval"
    lost: "Paired"


@dataclass(frozen=True, kw_only=True)
class TieReport:
    """The comparison.

    Args:
        moved_targets: share of users with another test item in the shuffled version.
    """

    users: int
    moved_targets: float
    rows: Sequence[TieRow]

    def measures(self) -> dict[str, float]:
        """Numbers by name, for MLflow."""
        found = {"users": float(self.users), "moved_targets": self.moved_targets}
        for row in self.rows:
            label = f"{row.recipe}.{row.metric}"
            found |= {f"{label}.as_is": row.as_is.mean, f"{label}.shuffled": row.shuffled.mean}
            found |= {f"{label}.lost": row.lost.difference.mean, f"{label}.lost_p": row.lost.p_value}
        return found


def both_versions(request: StageRequest, seed: int) -> dict[str, StageRequest]:
    """The request, and the same with shuffled ties."""
    shuffled = {"training_data.ties": "shuffled", "training_data.ties_seed": seed}
    return {"as_is": request, "shuffled": replace(request, overrides={**request.overrides, **shuffled})}


def refuse_wrong_settings(settings: Settings, request: StageRequest, recipes: Sequence[str], seed: int) -> None:
    """Check all settings before anything is trained.

    Raises:
        SettingError: a recipe is unknown or needs semantic ids, or a setting is wrong.
    """
    usable = [name for name, known in of_kind("recommender").items() if Need.CODES not in known.needs]
    for recipe in recipes:
        if recipe not in usable:
            raise SettingError(f"--recipes names {recipe!r}: give some of {', '.join(sorted(usable))}")
        settings_of(recipe, settings, request)
    for one in both_versions(request, seed).values():
        training_data_settings(settings, one)


def tie_report(settings: Settings, request: StageRequest, recipes: Sequence[str], seed: int = 0) -> TieReport:
    """Train and evaluate each of `recipes` on both versions; existing models are not trained again.

    Raises:
        SettingError: see `refuse_wrong_settings`.
        DataError: a table is missing, or the histories are too short.
    """
    refuse_wrong_settings(settings, request, recipes, seed)
    from ray_jobs import train
    from ray_jobs.data.training_data import read_training_data
    from ray_jobs.evaluation.evaluator import evaluate
    from ray_jobs.evaluation.metrics import bootstrap, paired
    from ray_jobs.recommenders.bundle import load_bundle

    values: dict[tuple[str, str], dict[str, npt.NDArray[np.float64]]] = {}
    targets = []
    for version, one in both_versions(request, seed).items():
        histories = read_training_data(settings, one, {Need.PREFERENCES}).histories
        targets.append(_test_items(histories))
        for recipe in recipes:
            trained = train.run(replace(one, stage=train.STAGE, recipe=recipe))
            model = load_bundle(trained.outputs["bundle_uri"]).recommender
            values[version, recipe] = evaluate(model, histories, ("test",))[-1].metrics()
    rows = [
        TieRow(
            recipe=recipe,
            metric=metric,
            as_is=bootstrap(values["as_is", recipe][metric]),
            shuffled=bootstrap(values["shuffled", recipe][metric]),
            lost=paired(values["as_is", recipe][metric], values["shuffled", recipe][metric]),
        )
        for recipe in recipes
        for metric in METRICS
    ]
    before, after = targets
    return TieReport(users=len(before), moved_targets=float((before != after).mean()), rows=rows)


def _test_items(histories: "Histories") -> "npt.NDArray[np.int64]":
    import numpy as np

    ends = [histories.target_position(user, "test") for user in range(len(histories))]
    return np.array([items[end] for items, end in zip(histories.items, ends, strict=True) if end >= 1], dtype=np.int64)


def render(report: TieReport) -> str:
    """The report as text, one line per recipe and metric."""
    from ray_jobs.registry.results import HEADINGS

    lines = [
        f"{report.users:,} users; the test item of {report.moved_targets:.1%} is another one when ties are shuffled",
        f"{'':<24}{'as it is':>24}{'ties shuffled':>24}{'lost, user by user':>32}{'p':>9}",
    ]
    for row in report.rows:
        cells = f"{row.as_is.text():>24}{row.shuffled.text():>24}{row.lost.difference.signed():>32}"
        lines.append(f"{f'{row.recipe} {HEADINGS[row.metric]}':<24}{cells}{row.lost.p_value:>9.4f}")
    return "\n".join(lines)


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; the exit status is 2, with one message, if something is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=DATASET, required=True, help="name of a registered data set")
    parser.add_argument("--partition", type=DAY, required=True, help="day, e.g. 2026-01-31")
    parser.add_argument("--recipes", default="sasrec,popularity", help="recommenders, with commas between")
    parser.add_argument("--seed", type=int, default=0, help="of the order inside ties")
    parser.add_argument(
        "--overrides", type=json.loads, default={}, metavar="JSON", help="e.g. '{\"sasrec.epochs\": 3}'"
    )
    given = parser.parse_args(argv)
    recipes = [name.strip() for name in given.recipes.split(",") if name.strip()]
    settings = load_settings()
    request = StageRequest(
        stage=STAGE, dataset=given.dataset, partition=given.partition, overrides=given.overrides, dag="manual"
    )
    found = tie_report(settings, request, recipes, given.seed)
    from ray_jobs.registry import runs

    logged = replace(request, upstream={"recipes": ",".join(recipes), "seed": str(given.seed)})
    run_id = runs.find_or_start(settings, logged, f"ties {given.partition}", {"seed": given.seed})
    runs.log_metrics(run_id, [(name, round(value, 6), 0) for name, value in found.measures().items()])
    runs.log_json(run_id, asdict(found), "tie_report.json")
    runs.finish(run_id)
    sys.stdout.write(f"{render(found)}\n")


if __name__ == "__main__":
    main()
