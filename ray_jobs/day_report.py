"""The work of `ray_jobs.stages.day_report`: read the reports of the day's tasks, log them, link the version to them."""

import tempfile
from pathlib import Path

from mlflow import MlflowClient

from infra.progress import Progress, phase
from infra.settings import load_settings
from ray_jobs.days.content import REGISTERED_PROMPT, Pages, assemble, experiment_name, prompts_of, registered_by
from ray_jobs.days.facts import outcomes_of
from ray_jobs.days.page import Content, render, status_of
from ray_jobs.registry import runs, versions
from ray_jobs.stages.day_report import STAGE
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest

PROMPTS_TAG = "penchant.prompts"
REPORT_TAG = "penchant.day_report"
PROMPT_VERSION_TAG = "penchant.prompt_version"
NEWEST_TAG = "penchant.newest_model_version"
"""On a version of a prompt: the newest model version that uses its responses."""


def run(request: StageRequest) -> StageReport:
    """Write the page of the request's day."""
    settings = load_settings()
    progress = Progress(settings.home, STAGE)
    progress.update(0, 2, "reading reports")
    client = runs.connect(settings)
    with phase("reading the tasks' reports") as found:
        outcomes = outcomes_of(settings, request)
        content = assemble(settings, request, client, outcomes)
        found |= {"tasks": len(outcomes), "earlier days": content.earlier_days}
    progress.update(1, 2, "writing the page")
    # The same run for every run of the day.
    day = StageRequest(stage=STAGE, dataset=request.dataset, partition=request.partition, dag=STAGE)
    run_id = runs.find_or_start(settings, day, request.partition, {}, experiment=experiment_name(request.dataset))
    with phase("writing the page"):
        _log(run_id, content)
    experiment = client.get_run(run_id).info.experiment_id
    page = Pages(settings, client, request.dataset).report(run_id, experiment)
    _link_version(client, content, page or run_id)
    word = status_of(outcomes)
    progress.update(2, 2, word)
    return StageReport(
        stage=STAGE,
        status="done",
        counts={
            "tasks": len(outcomes),
            "failed": sum(outcome.state == "failed" for outcome in outcomes),
            "earlier_days": content.earlier_days,
            "versions": len(content.versions),
            "numbers": len(content.today.metrics),
        },
        outputs={"mlflow_run_id": run_id, "page": page, "day": word},
    )


def _log(run_id: str, content: Content) -> None:
    """Update the day's run."""
    runs.log_metrics(run_id, [(name, value, 0) for name, value in content.today.metrics.items()])
    word = status_of(content.outcomes)
    failed = [outcome.task_id for outcome in content.outcomes if outcome.state == "failed"]
    note = f"**{word}** {content.decision}" + (f" Failed: {', '.join(failed)}." if failed else "")
    runs.set_tags(run_id, {**content.today.tags, "day": word, **runs.run_page_tag(), "mlflow.note.content": note})
    with tempfile.TemporaryDirectory() as folder:
        plots = Path(folder) / "plots"
        plots.mkdir()
        for name, image in content.images.items():
            (plots / f"{name}.png").write_bytes(image)
        (Path(folder) / "report.html").write_text(render(content))
        runs.log_artifacts(run_id, folder, "")
    runs.finish(run_id)


def _link_version(client: MlflowClient, content: Content, report: str) -> None:
    """Link the day's version to its report and to the prompts whose responses it uses, and these to the version."""
    registered = registered_by(content.outcomes)
    if not registered:
        return
    found = client.get_model_version(registered["model_name"], registered["version"])
    prompts = {PROMPTS_TAG: prompts_of(content.paid)} if content.paid else {}
    versions.tag_version(client, found, {REPORT_TAG: report, **prompts})
    for paid in content.paid:
        name = REGISTERED_PROMPT.format(paid.prompt)
        prompt = client.load_prompt(name, allow_missing=True)
        if prompt is not None and prompt.tags.get(PROMPT_VERSION_TAG) == paid.version:
            if found.run_id:
                client.link_prompt_version_to_run(found.run_id, prompt)
            client.set_prompt_version_tag(name, prompt.version, NEWEST_TAG, f"{found.name}/{found.version}")
