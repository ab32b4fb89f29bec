"""The work of `ray_jobs.stages.steerability`: measure each model, publish the rows, report and tag it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from infra.errors import SettingError
from infra.progress import Progress, phased
from infra.settings import Settings, load_settings
from ray_jobs.data.day_states import input_partition
from ray_jobs.data.settings import TIME_SPLIT
from ray_jobs.data.tables import input_table, publish, table_exists, table_version
from ray_jobs.evaluation.property_steering import steer_to_properties, summarise_properties
from ray_jobs.evaluation.steering import Past, Sample, answer, evaluation_rows, read_pasts, summarise
from ray_jobs.recommenders.bundle import Bundle, load_bundle
from ray_jobs.registry import runs, steering_plots, steering_report, versions
from ray_jobs.registry.trained import RECOMMENDER, Trained
from ray_jobs.stages.steerability import STAGE, SteerabilitySettings
from schemas.errors import DataError
from schemas.handoff import Handoff, StageReport
from schemas.model_versions import CHALLENGER, CHAMPION, CHAMPION_KEY, registered_name
from schemas.preference_benchmark import PREFERENCE_BENCHMARK
from schemas.preference_evaluations import PREFERENCE_EVALUATIONS
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest
from schemas.steering_probes import STEERING_PROBES

MODELS = "versions.models"
"""Upstream output that names the versions, separated by commas."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model to measure.

    Args:
        model: name in `preference_evaluations`, ``<name>/<version>``, or the run identity of an unregistered model.
        label: distinguishes it in names of runs and counts.
        bundle_uri: of an unregistered model.
        version: None for an unregistered model.
        run_id: the training run of an unregistered model, which gets the tags.
    """

    model: str
    label: str
    bundle_uri: str = ""
    version: ModelVersion | None = None
    run_id: str = ""


def run(request: StageRequest) -> StageReport:
    """Measure and report every model.

    Raises:
        SettingError: a version does not exist.
        DataError: the benchmark is missing, or has no sample in the splits.
    """
    settings = load_settings()
    own = stage_settings(SteerabilitySettings, settings, request)
    progress = Progress(settings.home, STAGE)
    progress.update(0, 1, "reading tables")
    wanted = pc.field("split").isin(own.splits)
    samples = input_partition(settings, request, PREFERENCE_BENCHMARK.name).filter(wanted).to_pylist()
    if not samples:
        raise SettingError(
            f"preference_benchmark has no sample of the split {', '.join(own.splits)} on {request.partition}: ask the "
            "language model about more users (review_lines.max_users) and build it again"
        )
    day = pc.field("partition_date") == request.partition_date()
    probes = input_table(settings, request, STEERING_PROBES.name, None, day).to_pylist()
    pasts = read_pasts(input_partition(settings, request, "sequences"))
    client = runs.connect(settings)
    candidates = _candidates(client, request, own)
    uri = settings.table_uri(request.dataset, PREFERENCE_EVALUATIONS.name)
    before = table_version(uri) if table_exists(uri) else None
    counts: dict[str, int | float] = {"samples": len(samples), "probes": len(probes), "models": len(candidates)}
    handoff: Handoff | None = None
    rows = 0
    for candidate in candidates:
        bundle = _load(candidate)
        report = measure(bundle, candidate, request, own, samples, probes, pasts, progress)
        handoff = _publish(report, request, uri)
        rows += handoff.rows
        numbers = steering_report.metric_rows(report)
        _record(settings, request, own, candidate, report, numbers, pasts)
        label = bundle.recipe if len(candidates) == 1 else f"{bundle.recipe} {candidate.label}"
        counts |= {f"{label}.{name}": value for name, value in numbers.items() if "lift" in name}
        counts |= {f"{label}.success.{s.kind}": round(s.success, 4) for s in report.kinds}
    assert handoff is not None
    progress.update(1, 1, f"{len(candidates)} models")
    return StageReport(
        stage=STAGE,
        status="reused" if handoff.version == before else "done",
        handoffs={PREFERENCE_EVALUATIONS.name: replace(handoff, rows=rows)},
        counts={**counts, "rows": rows},
        outputs={"models": ",".join(candidate.model for candidate in candidates)},
    )


def _candidates(client: MlflowClient, request: StageRequest, own: SteerabilitySettings) -> list[Candidate]:
    named = own.models or tuple(filter(None, request.upstream.get(MODELS, "").split(",")))
    candidates = []
    if not named and any(name.startswith(f"{RECOMMENDER}.") for name in request.upstream):
        trained = Trained.of(request.upstream)
        candidates.append(
            Candidate(model=trained.identity, label=CHALLENGER, bundle_uri=trained.bundle_uri, run_id=trained.run_id)
        )
        named = tuple(filter(None, [request.upstream.get(CHAMPION_KEY)]))
    elif not named:
        named = (f"{registered_name(request.dataset)}@{CHAMPION}",)
    found = [versions.resolve(client, name) for name in named]
    return candidates + [Candidate(model=f"{v.name}/{v.version}", label=str(v.version), version=v) for v in found]


def _load(candidate: Candidate) -> Bundle:
    """The model's bundle.

    Raises:
        DataError: it was trained on a split by time, which does not hold out the benchmark's targets.
    """
    version = candidate.version
    bundle = load_bundle(candidate.bundle_uri) if version is None else versions.load_version(version)
    if bundle.provenance.get("data_version") == TIME_SPLIT:
        raise DataError(
            f"{candidate.model} was trained with training_data.split time: it may have learned the last items of "
            "histories, which are the targets of preference_benchmark; train with training_data.split last to measure "
            "steerability"
        )
    return bundle


@phased("measuring the model", lambda report: {"answers": len(report.answers)})
def measure(
    bundle: Bundle,
    candidate: Candidate,
    request: StageRequest,
    own: SteerabilitySettings,
    samples: Sequence[Sample],
    probes: Sequence[Sample],
    pasts: dict[str, Past],
    progress: Progress,
) -> steering_report.Report:
    """The report of one model."""
    answers = answer(bundle, samples, pasts, own.exclude_seen, progress.update)
    steered = steer_to_properties(bundle, probes, pasts, own.probe_users, own.seed, own.exclude_seen, progress.update)
    bundle.recommender.release()
    return steering_report.Report(
        model=candidate.model,
        recipe=bundle.recipe,
        dataset=request.dataset,
        partition=request.partition,
        catalogue=bundle.catalogue,
        results=summarise(answers),
        answers=answers,
        properties=steered,
        kinds=summarise_properties(steered),
        unknown_targets=sum(sample["target_item_id"] not in bundle.catalogue.index for sample in samples),
    )


def _publish(report: steering_report.Report, request: StageRequest, uri: str) -> Handoff:
    schema = pa.schema(
        field for field in PREFERENCE_EVALUATIONS.arrow_schema() if field.name not in ("partition_date", "model")
    )
    rows = pa.Table.from_pylist(evaluation_rows(report.answers), schema)
    partition = {"partition_date": request.partition_date(), "model": report.model}
    return publish(rows, PREFERENCE_EVALUATIONS, uri, partition, request.identity())


def _record(
    settings: Settings,
    request: StageRequest,
    own: SteerabilitySettings,
    candidate: Candidate,
    report: steering_report.Report,
    numbers: dict[str, float],
    pasts: dict[str, Past],
) -> None:
    """Log to the model's own run, which a retry finds again, and set its tags."""
    mine = replace(request, recipe=f"{report.recipe}-{candidate.label}")
    title = f"{report.model}, {request.partition}"
    run_id = runs.find_or_start(settings, mine, f"steering {report.model} {request.partition}", asdict(own))
    runs.log_metrics(run_id, [(name, value, 0) for name, value in numbers.items()])
    for result in report.results:
        name = result.axis if len(own.splits) == 1 else f"{result.axis}_{result.split}"
        runs.log_figure(run_id, steering_plots.axis_figure(result, title), f"plots/{name}.png")
        runs.log_text(run_id, steering_report.axis_table(result).to_csv(), f"tables/{name}.csv")
    if report.properties:
        runs.log_figure(run_id, steering_plots.property_figure(report.properties, title), "plots/properties.png")
    runs.log_text(run_id, steering_report.page(report, pasts), "report.html")
    runs.finish(run_id)
    tags = steering_report.tags(report, run_id, own.splits[-1])
    if candidate.version is None:
        runs.set_tags(candidate.run_id, tags)
    else:
        versions.tag_version(runs.connect(settings), candidate.version, tags)
