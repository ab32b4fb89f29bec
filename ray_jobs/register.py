"""The work of `ray_jobs.stages.register`: choose, log and judge a model, create its version, move the aliases."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from infra import storage
from infra.progress import Progress, phased
from infra.settings import load_settings
from ray_jobs.evaluation.exposure import LIST_LENGTH
from ray_jobs.evaluation.measurements import compare
from ray_jobs.evaluation.metrics import Paired
from ray_jobs.recommenders.bundle import Bundle, load_bundle
from ray_jobs.registry import aliases, plots, promotion, runs, versions
from ray_jobs.registry.judging import Case, Choice, choose, judge
from ray_jobs.registry.lineage import git_revision
from ray_jobs.registry.model import input_example, log_model
from ray_jobs.registry.model_card import EXPOSURE, CardContent, markdown
from ray_jobs.registry.results import ModelResult, read_results, results_of_version, with_slices
from ray_jobs.registry.settings import PromotionSettings
from ray_jobs.registry.steering_report import TAG as STEERING_TAG
from ray_jobs.registry.trained import BASELINE, Trained
from ray_jobs.registry.users import Audience, read_audience
from ray_jobs.stages.register import STAGE
from schemas.handoff import StageReport
from schemas.model_versions import (
    BEFORE_TAG,
    CHALLENGER,
    CHAMPION,
    DECISION_TAG,
    IDENTITY_TAG,
    INSTEAD_TAG,
    NONE,
    NOT_REGISTERED,
    PARTITION_TAG,
    PROMOTED,
    REGISTERED_TAG,
    ROLLED_BACK_TAG,
    VERSION_TAG,
    WAITING,
    WORK_TAG,
    registered_name,
)
from schemas.recipes import Need
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

STEPS = 5
LISTED = ("ndcg_10", "recall_10")
"""Metrics in a version's tags; its card has all of them."""


def run(request: StageRequest) -> StageReport:
    """Register the recommender of `request.upstream`, or the better baseline, and decide about its aliases."""
    settings = load_settings()
    own = stage_settings(PromotionSettings, settings, request)
    progress = Progress(settings.home, STAGE)
    recommender = Trained.of(request.upstream)
    client = runs.connect(settings)
    name = registered_name(request.dataset)
    found = versions.find_for_run(client, name, recommender.identity)
    if found is not None and _judged(found):
        return _report(client, found, "reused", {"versions_made": 0})
    with aliases.promotion_lock(settings, name):
        progress.update(0, STEPS, "reading metrics")
        everything = read_results(settings, request)
        choice = choose(everything, request.upstream, own)
        trained = choice.trained
        found = versions.find_version(client, name, trained.identity)
        champion = aliases.champion_of(client, name)
        if found is not None and _judged(found):
            _tag_lost(choice, found)
            return _report(client, found, "reused", {"versions_made": 0})
        if found is not None and champion == str(found.version):
            if BEFORE_TAG in found.tags:
                return _completed(client, found)
            champion = None

        lost = "" if choice.lost is None else choice.lost.identity
        baseline = request.upstream.get(f"{BASELINE}.run_identity", "")
        own_results, beside = results_of_version(everything, trained.identity, request, baseline, lost)
        results = with_slices(own_results + beside)
        bundle = load_bundle(trained.bundle_uri)
        audience = read_audience(settings, request, own.latency_requests + 1)
        training_run = client.get_run(trained.run_id)
        decision = judge(
            Case(
                settings=settings,
                request=request,
                own=own,
                everything=everything,
                results=results,
                choice=choice,
                coverage=training_run.data.metrics.get(f"test.coverage_{LIST_LENGTH}"),
                bundle=bundle,
                users=audience.sample,
                champion=None if champion is None else client.get_model_version(name, champion),
                version="" if found is None else str(found.version),
            )
        )
        if found is not None and ROLLED_BACK_TAG in found.tags:
            note = f"it was rolled back {found.tags[ROLLED_BACK_TAG]}"
            decision = promotion.Decision((*decision.checks, promotion.refused("rolled back", note)))
        revision, dirty = git_revision()
        layer = bundle.recommender.steering
        content = CardContent(
            model_name=name,
            recipe=bundle.recipe,
            dataset=request.dataset,
            partition=request.partition,
            run_identity=trained.identity,
            run_id=trained.run_id,
            git_revision=revision,
            git_dirty=dirty,
            items=len(bundle.catalogue),
            users=audience.users,
            with_preference=audience.with_preference,
            results=results,
            comparisons=_comparisons(results, trained),
            exposures=_exposures(client, training_run, request, choice.lost),
            codebook=_codebook(request, bundle),
            inputs=request.inputs,
            settings=bundle.recommender.settings_dict(),
            steering=None if layer is None else layer.fit,
            decision=decision,
        )
        progress.update(1, STEPS, "plots")
        _log_plots(content, bundle)
        tags = _tags(request, choice, content, bundle, training_run)
        made = found is None
        if found is None:
            progress.update(2, STEPS, "logging the model")
            found = _create_version(client, training_run, trained, bundle, audience, name, tags)
        progress.update(3, STEPS, "model card")
        _describe(client, found, content, tags)
        runs.log_json(trained.run_id, decision.to_dict(), "promotion.json")
        _tag_lost(choice, found)
        progress.update(4, STEPS, "promotion")
        _move_aliases(client, found, decision, champion)
    progress.update(STEPS, STEPS, decision.word)
    counts: dict[str, int | float] = {"versions_made": int(made), "promoted": int(decision.promote)}
    for result in reversed(results):
        counts[f"{result.recipe}.test.ndcg_10"] = round(result.metrics["ndcg_10"].mean, 6)
    return _report(client, client.get_model_version(name, str(found.version)), "done", counts)


def _judged(found: ModelVersion) -> bool:
    return found.tags.get(DECISION_TAG, WAITING) != WAITING


def _comparisons(results: list[ModelResult], trained: Trained) -> dict[str, Paired]:
    """Paired differences of the model to the others; that to SASRec is logged to its run."""
    others = [result for result in results if result.model != results[0].model]
    found = {result.label: compare(results[0].measured, result.measured, "ndcg_10") for result in others}
    baseline = next((result.label for result in others if result.recipe == "sasrec"), None)
    if baseline is not None:
        gap = found[baseline].difference
        numbers = {"": gap.mean, "_low": gap.low, "_high": gap.high, "_p": found[baseline].p_value}
        rows = [(f"test.ndcg_10_over_sasrec{end}", round(value, 6), 0) for end, value in numbers.items()]
        runs.log_metrics(trained.run_id, rows)
    return found


def _exposures(
    client: MlflowClient, training_run: Run, request: StageRequest, lost: Trained | None
) -> dict[str, dict[str, float]]:
    """Exposure measures, as logged by the evaluate stage, of the model and of those trained beside it."""
    logged = {training_run.data.tags.get("recipe", "model"): training_run.data.metrics}
    baseline = request.upstream.get(f"{BASELINE}.mlflow_run_id", "")
    if baseline and baseline != training_run.info.run_id:
        logged["sasrec, baseline"] = client.get_run(baseline).data.metrics
    if lost is not None:
        run = client.get_run(lost.run_id)
        logged[f"{run.data.tags.get('recipe', 'recommender')}, not registered"] = run.data.metrics
    return {
        name: {measure: metrics[f"test.{measure}"] for measure in EXPOSURE}
        for name, metrics in logged.items()
        if all(f"test.{measure}" in metrics for measure in EXPOSURE)
    }


def _codebook(request: StageRequest, bundle: Bundle) -> str:
    """Version of the semantic ids, empty for a recipe without."""
    if Need.CODES not in bundle.recommender.needs:
        return ""
    return str(bundle.provenance.get("codebook") or request.upstream.get("semantic_ids.codebook", ""))


@phased("plots")
def _log_plots(content: CardContent, bundle: Bundle) -> None:
    run_id = content.run_id
    title = f"{content.recipe}, {content.dataset}, {content.partition}"
    runs.log_figure(run_id, plots.metric_comparison(content.results, f"Test split, {title}"), "plots/metrics.png")
    runs.log_figure(run_id, plots.slice_comparison(content.results, title=f"Test split, {title}"), "plots/slices.png")
    catalogue = bundle.catalogue
    if catalogue.codes is not None:
        codes = np.asarray(catalogue.codes)
        runs.log_figure(run_id, plots.codebook_use(codes, catalogue.level_sizes), "plots/codebook.png")


def _tags(
    request: StageRequest, choice: Choice, content: CardContent, bundle: Bundle, training_run: Run
) -> dict[str, str]:
    """Tags for lists of versions, in this order, and for other stages."""
    own = content.results[0]
    start = bundle.provenance.get("warm_start", {}).get("version")
    return {
        PARTITION_TAG: content.partition,
        "penchant.recipe": content.recipe,
        **{f"penchant.test.{metric}": f"{own.metrics[metric].mean:.6f}" for metric in LISTED},
        **({versions.WARM_START_TAG: start} if start else {}),
        **({"penchant.codebook": content.codebook} if content.codebook else {}),
        **runs.run_page_tag(),
        "penchant.dataset": content.dataset,
        IDENTITY_TAG: choice.trained.identity,
        **({INSTEAD_TAG: choice.lost.identity} if choice.lost else {}),
        **({WORK_TAG: request.upstream["changes.work"]} if "changes.work" in request.upstream else {}),
        **{key: value for key, value in training_run.data.tags.items() if key.startswith(f"{STEERING_TAG}.")},
    }


@phased("logging and registering the model")
def _create_version(
    client: MlflowClient,
    training_run: Run,
    trained: Trained,
    bundle: Bundle,
    audience: Audience,
    name: str,
    tags: Mapping[str, str],
) -> ModelVersion:
    dataset = tags["penchant.dataset"]
    description = (
        f"Generative recommender for data set **{dataset}**: item histories and an optional preference "
        "sentence in, next items out. The alias `champion` is what scores and serves; `challenger` is the newest "
        "candidate. Each version's description is its model card."
    )
    versions.ensure_registered_model(
        client, name, description, {"penchant.dataset": dataset, "task": "sequential recommendation"}
    )
    run_id = training_run.info.run_id
    model_id = versions.find_logged_model(client, training_run.info.experiment_id, run_id, trained.identity)
    if model_id is None:
        example = input_example(audience.first_told)
        recommender = bundle.recommender
        packages = recommender.packages(recommender.settings, steered=recommender.steering is not None)
        with storage.local_copy(trained.bundle_uri) as folder:
            model_id = log_model(run_id, folder, example, packages, tags)
    source = f"models:/{model_id}"
    return runs.create_once(
        lambda: client.create_model_version(name, source, run_id=run_id, model_id=model_id, tags=dict(tags)),
        lambda: versions.find_version(client, name, trained.identity),
    )


@phased("model card")
def _describe(client: MlflowClient, found: ModelVersion, content: CardContent, tags: Mapping[str, str]) -> None:
    card = markdown(content, str(found.version))
    client.update_model_version(found.name, str(found.version), card)
    versions.tag_version(client, found, tags)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model_card.md"
        path.write_text(card)
        client.log_artifact(content.run_id, str(path))
    link = f"{found.name}/{found.version}"
    runs.set_tags(content.run_id, {VERSION_TAG: link, "mlflow.note.content": card})


def _tag_lost(choice: Choice, found: ModelVersion) -> None:
    """Record on the run of a recommender that lost to its baseline that it was not registered, and why."""
    if choice.lost is None or choice.why is None:
        return
    link, reason = f"{found.name}/{found.version}", choice.why.note
    decision = promotion.Decision((choice.why,)).to_dict() | {"decision": NOT_REGISTERED, "registered_instead": link}
    runs.log_json(choice.lost.run_id, decision, "promotion.json")
    tags = {DECISION_TAG: NOT_REGISTERED, versions.REASON_TAG: reason, REGISTERED_TAG: link}
    note = f"**{NOT_REGISTERED}**: {reason}. Version {link} is of the baseline."
    runs.set_tags(choice.lost.run_id, tags | {"mlflow.note.content": note})


@phased("promotion")
def _move_aliases(
    client: MlflowClient, found: ModelVersion, decision: promotion.Decision, champion: str | None
) -> None:
    """Move the aliases, then record the decision: its tag means that everything is done."""
    name, version = found.name, str(found.version)
    aliases.point_alias(client, name, CHALLENGER, version)
    versions.tag_version(client, found, {BEFORE_TAG: champion or NONE, versions.REASON_TAG: decision.reason})
    if decision.promote:
        now = aliases.champion_of(client, name)
        if now not in (champion, version):
            raise aliases.AliasConflict(
                f"version {version} of {name} was compared with champion {champion or NONE}, and {now or NONE} became "
                "champion meanwhile: run evaluate and register again"
            )
        aliases.point_alias(client, name, CHAMPION, version)
        aliases.record_change(client, name, champion, version)
    client.set_model_version_tag(name, version, DECISION_TAG, decision.word)


def _completed(client: MlflowClient, found: ModelVersion) -> StageReport:
    """Complete an earlier try that was killed after it had moved the alias."""
    name, version = found.name, str(found.version)
    before = found.tags[BEFORE_TAG]
    aliases.record_change(client, name, None if before == NONE else before, version)
    client.set_model_version_tag(name, version, DECISION_TAG, PROMOTED)
    counts = {"versions_made": 0, "promoted": 1}
    return _report(client, client.get_model_version(name, version), "done", counts)


def _report(client: MlflowClient, found: ModelVersion, status: str, counts: Mapping[str, int | float]) -> StageReport:
    name, version = found.name, str(found.version)
    held = [alias for alias in (CHAMPION, CHALLENGER) if aliases.version_at(client, name, alias) == version]
    decision = f"{found.tags[DECISION_TAG]}: {found.tags[versions.REASON_TAG]}"
    if ROLLED_BACK_TAG in found.tags:
        decision = f"rolled back {found.tags[ROLLED_BACK_TAG]} (it was {decision})"
    return StageReport(
        stage=STAGE,
        status=status,
        counts=counts,
        outputs={"model_name": name, "version": version, "alias": held[0] if held else "", "decision": decision},
    )
