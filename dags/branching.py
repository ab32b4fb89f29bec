"""Tasks that choose between branches by what a stage decided; the decision itself is the stage's."""

import logging

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowFailException


@task.branch(
    trigger_rule="none_failed",
    doc_md="""
Takes the branch that `continuation` decided for: `append_items` where the codebook in use still fits, `semantic_ids`
where the tokenizer is trained again. The reason is in this task's log and in its XCom `reason`.
""",
)
def choose_codebook() -> str:
    """The id of the task to run."""
    context = get_current_context()
    report = context["ti"].xcom_pull(task_ids="continuation")
    if report is None:
        raise AirflowFailException("continuation left no report: clear it and run it again")
    reason = report["outputs"]["reason"]
    logging.getLogger(__name__).info("%s: %s", report["outputs"]["codebook"], reason)
    context["ti"].xcom_push(key="reason", value=reason)
    return "append_items" if report["outputs"]["codebook"] == "append" else "semantic_ids"
