"""Tasks that choose a branch of the graph by the report of a stage."""

import logging
import tomllib
from collections.abc import Mapping
from typing import Any

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from dags.chain import MEASURED
from dags.operators.stages import overrides_of, partition_of
from dags.prepared import CHANGES, refuse_missing, registry
from infra.masks import without_secrets
from infra.settings import REPOSITORY, LLMSettings, load_settings
from schemas.handoff import StageReport, write_report
from schemas.model_versions import (
    DECISION_TAG,
    PARTITION_TAG,
    PROMOTED,
    ROLLED_BACK_TAG,
    WAITING,
    WORK_TAG,
    registered_name,
)
from schemas.run_identity import config_hash
from schemas.stages import hash_of_profile

PROMPTS = REPOSITORY / "pipelines" / "language" / "prompts"


@task(
    trigger_rule="none_failed",
    doc_md="""
Ends the day here if reviews, items, prompts and settings are those of an earlier day whose model was judged: no calls,
no encoding, no training; that day's model and recommendations remain. The reason is in this task's log and in its XCom
`reason`.
""",
)
def changes() -> dict[str, Any]:
    """Report with the hash of the day's work, by which later days find its version."""
    context = get_current_context()
    report = context["ti"].xcom_pull(task_ids="sequences")
    if report is None:
        raise AirflowFailException("sequences left no report: clear it and run it again")
    refuse_missing(context, report["counts"])
    settings, params, partition = load_settings(), context["params"], partition_of(context)
    stages = [task.stage for task in context["dag"].tasks if hasattr(task, "stage")]
    asked = [stage for stage in stages if stage.row.calls_llm and stage.task_id not in params["leave_out"]]
    sections = {name for stage in stages for name in stage.row.sections_of(stage.recipe_of(params))}
    work = config_hash(
        {
            "content": report["outputs"]["content"],
            "overrides": {k: v for k, v in overrides_of(params).items() if k.partition(".")[0] in sections},
            "profile": hash_of_profile(settings.stages, sections, settings.llm.model),
            **({"language": _language(settings.llm)} if asked else {}),
            "leave_out": sorted(params["leave_out"]),
            **{name: params[name] for name in ("tokenizer", "recommender", "generation", MEASURED)},
        }
    )
    same = _judged_before(registered_name(params["dataset"]), work, partition)
    if same is None:
        reason = "reviews, items, prompts or settings differ from those of every version before"
    else:
        reason = f"nothing changed since {same.tags[PARTITION_TAG]}, whose version {same.version} stays as judged"
    made = StageReport(
        stage=CHANGES, status="done", outputs={"work": work, "reason": reason, "changed": str(same is None).lower()}
    )
    write_report(settings.latest_report_uri(params["dataset"], partition, CHANGES), made)
    logging.getLogger(__name__).info("%s", reason)
    context["ti"].xcom_push(key="reason", value=reason)
    if same is not None:
        later = context["task"].get_flat_relatives(upstream=False)
        raise DownstreamTasksSkipped(tasks=[t.task_id for t in later if not t.is_teardown])
    return made.to_dict()


def _language(llm: LLMSettings) -> Mapping[str, Any]:
    """What answers of the language model depend on beside its name and the stages' settings.

    Not the endpoint's address: the same model elsewhere is no other work.
    """
    prompts = {path.stem: tomllib.loads(path.read_text()) for path in sorted(PROMPTS.glob("*.toml"))}
    return {"prompts": prompts, "extra_body": without_secrets(llm.extra_body), "scoring": llm.scoring}


def _judged_before(name: str, work: str, partition: str) -> Any:
    """The newest version of the same work judged on an earlier day, or None.

    Also None if a version of other work was promoted since and not rolled back: then a return to earlier data is a
    change for production.
    """
    judged, promoted_since = None, False
    for version in sorted(registry().search_model_versions(f"name = '{name}'"), key=lambda one: int(one.version)):
        tags = version.tags
        decision = tags.get(DECISION_TAG, WAITING)
        if tags.get(WORK_TAG) == work and tags.get(PARTITION_TAG, "9") < partition and decision != WAITING:
            judged, promoted_since = version, False
        elif decision == PROMOTED and ROLLED_BACK_TAG not in tags:
            promoted_since = True
    return None if promoted_since else judged


@task(
    trigger_rule="none_failed",
    doc_md="Skips the preference benchmark and its inputs, unless **measure steerability** is on.",
)
def measure_steering() -> None:
    """Skip the direct successors of this task."""
    context = get_current_context()
    if not context["params"][MEASURED]:
        behind = context["task"].get_direct_relatives(upstream=False)
        raise DownstreamTasksSkipped(tasks=[t.task_id for t in behind if not t.is_teardown])


@task.branch(
    trigger_rule="none_failed",
    doc_md="""
Takes the branch that `continuation` chose: `append_items` if the codebook in use still fits, `semantic_ids` if the
tokenizer is trained again. The reason is in this task's log and in its XCom `reason`.
""",
)
def choose_codebook() -> str:
    """Id of the task to run."""
    context = get_current_context()
    report = context["ti"].xcom_pull(task_ids="continuation")
    if report is None:
        raise AirflowFailException("continuation left no report: clear it and run it again")
    reason = report["outputs"]["reason"]
    logging.getLogger(__name__).info("%s: %s", report["outputs"]["codebook"], reason)
    context["ti"].xcom_push(key="reason", value=reason)
    return "append_items" if report["outputs"]["codebook"] == "append" else "semantic_ids"
