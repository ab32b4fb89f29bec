"""Rank every user's held-out item against the whole catalogue: the trained model, the baseline and popularity.

Per-user rows go to the table ``evaluations``, one partition per day and model; means with 95 % bootstrap intervals,
and the paired difference to popularity, go to the models' MLflow runs and to the report. Models run in this process.
"""

from dataclasses import dataclass, replace

import numpy as np

from infra.progress import Progress
from infra.settings import load_settings, stage_settings
from ray_jobs.data.histories import Catalogue, Histories
from ray_jobs.data.tables import publish, table_exists, table_version
from ray_jobs.data.training_data import read_training_data
from ray_jobs.evaluation.evaluator import HISTORY, Ranked, evaluate, evaluation_rows
from ray_jobs.evaluation.metrics import bootstrap
from ray_jobs.recommenders.base import Recommender
from ray_jobs.recommenders.bundle import load_bundle
from ray_jobs.recommenders.popularity import Popularity, PopularitySettings
from ray_jobs.registry import runs
from schemas.errors import DataError
from schemas.evaluations import EVALUATIONS
from schemas.handoff import StageReport
from schemas.stage import run_stage
from schemas.stage_request import StageRequest

STAGE = "evaluate"
TRAINERS = ("train_recommender", "train_baseline")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Settings of the stage.

    Args:
        exclude_seen: leave items of the history out of the ranking; the published protocol ranks all items.
    """

    exclude_seen: bool = False


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate.

    Args:
        model: name in `evaluations`, ``<recipe>@<run identity>``.
        run_id: MLflow run that gets the numbers, empty for none.
    """

    model: str
    recommender: Recommender
    run_id: str


def run(request: StageRequest) -> StageReport:
    """Evaluate the bundles in ``request.upstream`` and popularity, and publish per-user rows."""
    settings = load_settings()
    own = stage_settings(EvaluateSettings, STAGE, settings, request.overrides)
    progress = Progress(settings.home, STAGE)
    progress.update(0, 1, "reading tables")
    data = read_training_data(settings, request, codes=False, preferences=True)
    candidates = [_popularity(request, data.catalogue, data.histories), *_trained(request, data.catalogue)]
    uri = settings.table_uri(request.dataset, EVALUATIONS.name)
    before = table_version(uri) if table_exists(uri) else None
    counts: dict[str, float] = {"users": len(data.histories), "items": len(data.catalogue)}
    reference: dict[str, Ranked] = {}
    rows = 0
    if any(candidate.run_id for candidate in candidates):
        runs.connect(settings)
    for number, candidate in enumerate(candidates):

        def notify(done: int, total: int, note: str, number: int = number) -> None:
            progress.update(number * total + done, len(candidates) * total, note)

        results = evaluate(candidate.recommender, data.histories, exclude_seen=own.exclude_seen, notify=notify)
        if not all(len(result.ranks) for result in results):
            raise DataError("no history is long enough (three items) to hold out a validation and a test item")
        candidate.recommender.release()
        if not reference:
            reference = {result.split: result for result in results}
        table = evaluation_rows(results, candidate.model, data.histories, data.catalogue.item_ids)
        partition = {"partition_date": request.partition_date(), "model": candidate.model}
        handoff = publish(table, EVALUATIONS, uri, partition, request.identity())
        rows += handoff.rows
        summary = _summary(results, reference)
        counts |= {f"{candidate.recommender.name}.{name}": value for name, value in summary.items()}
        if candidate.run_id:
            runs.log_metrics(candidate.run_id, [(name, value, 0) for name, value in summary.items()])
    progress.update(1, 1, f"{len(candidates)} models")
    return StageReport(
        stage=STAGE,
        status="reused" if handoff.version == before else "done",
        handoffs={EVALUATIONS.name: replace(handoff, rows=rows)},
        counts={**counts, "rows": rows},
        outputs={},
    )


def _popularity(request: StageRequest, catalogue: Catalogue, histories: Histories) -> Candidate:
    recommender = Popularity(PopularitySettings(), catalogue)
    recommender.fit_counts(histories)
    return Candidate(f"popularity@{request.dataset}--{request.partition}", recommender, "")


def _trained(request: StageRequest, catalogue: Catalogue) -> list[Candidate]:
    """The models that earlier tasks trained.

    Raises:
        DataError: none is named, or one was trained on another catalogue.
    """
    candidates = []
    for task in TRAINERS:
        uri = request.upstream.get(f"{task}.bundle_uri")
        if not uri:
            continue
        bundle = load_bundle(uri)
        if bundle.catalogue.item_ids != catalogue.item_ids:
            raise DataError(
                f"the model in {uri} was trained on {len(bundle.catalogue)} items that are not the "
                f"{len(catalogue)} items of the sequences of {request.partition}: train on these tables first"
            )
        model = f"{bundle.recipe}@{bundle.provenance['run_identity']}"
        candidates.append(Candidate(model, bundle.recommender, request.upstream.get(f"{task}.mlflow_run_id", "")))
    if not candidates:
        raise DataError(
            f"no model to evaluate: --upstream names neither {' nor '.join(f'{t}.bundle_uri' for t in TRAINERS)}; "
            "run the train stage first"
        )
    return candidates


def _summary(results: list[Ranked], reference: dict[str, Ranked]) -> dict[str, float]:
    """Means, intervals and paired differences to popularity.

    Plain names (``test.ndcg_10``) are of the condition the model is served with, the last one; the history alone
    is named besides (``test.history.ndcg_10``) where the two differ.
    """
    served = {result.split: result.condition for result in results}
    summary: dict[str, float] = {}
    for result in results:
        label = result.split if result.condition == served[result.split] else f"{result.split}.{HISTORY}"
        for name, values in result.metrics().items():
            summary[f"{label}.{name}"] = round(float(values.mean()), 6)
        values = result.metrics()["ndcg_10"]
        own = bootstrap(values)
        gain = bootstrap(values - _aligned(reference[result.split], result))
        summary |= {
            f"{label}.ndcg_10_low": round(own.low, 6),
            f"{label}.ndcg_10_high": round(own.high, 6),
            f"{label}.ndcg_10_gain": round(gain.mean, 6),
            f"{label}.ndcg_10_gain_low": round(gain.low, 6),
            f"{label}.ndcg_10_gain_high": round(gain.high, 6),
        }
    return summary


def _aligned(reference: Ranked, result: Ranked) -> np.ndarray:
    assert np.array_equal(reference.examples.users, result.examples.users), "both rank the same users in one order"
    return reference.metrics()["ndcg_10"]


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
