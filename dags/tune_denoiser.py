"""### Tune the denoiser on a partition that the daily chain has prepared

Makes its own training data: windows of histories in which one item was swapped for another. A language model learns
with LoRA, on Ray Train, to name that item and to say what might have stood in its place (LLM4DSR). The base model is
the setting `tune_denoiser.base`: a tiny one of our own on a laptop, `hub:<repository>` on GPUs.

The adapter is in PEFT's format, in the task's MLflow run. Serve it beside its base with any OpenAI-compatible server
that takes adapters, and name it in `llm.model`.
"""

import datetime as dt

from airflow.sdk import DAG

from dags.alerts import watched
from dags.chain import DATASET, DEFAULT_ARGS, GENERATION, OVERRIDES, PARTITION, TUNE_DENOISER, make_tasks
from dags.prepared import inputs
from dags.turns import turn

with DAG(
    dag_id="tune_denoiser",
    dag_display_name="Tune the denoiser",
    description="Ad hoc: LoRA tuning of the model that names noise in histories",
    doc_md=__doc__,
    schedule=None,
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params={"dataset": DATASET, "partition": PARTITION, "generation": GENERATION, "overrides": OVERRIDES},
    tags=["penchant", "ad hoc", "impact:low"],
    **watched(),
) as dag:
    turn() >> inputs() >> make_tasks(TUNE_DENOISER, source="inputs")["tune_denoiser"]
