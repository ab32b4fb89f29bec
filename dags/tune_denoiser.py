"""### Tune the denoiser on a partition that the daily chain has prepared

The training data are windows of histories in which one item was swapped for another. A language model learns with LoRA,
on Ray Train, to name that item and to suggest a replacement (LLM4DSR). The base model is the setting
`tune_denoiser.base`: a tiny one of our own on a laptop, `hub:<repository>` on GPUs.

The adapter is in PEFT's format, in the task's MLflow run. Serve it with any OpenAI-compatible server that supports
adapters, and name it in `llm.model`.
"""

from dags.airflow_dag import new_dag
from dags.chain import DATASET, GENERATION, OVERRIDES, PARTITION, TUNE_DENOISER, make_tasks
from dags.dataset_lock import dataset_lock
from dags.prepared import inputs

with new_dag(
    "tune_denoiser",
    "Tune the denoiser",
    "Ad hoc: LoRA tuning of the model that names noise in histories",
    __doc__,
    {"dataset": DATASET, "partition": PARTITION, "generation": GENERATION, "overrides": OVERRIDES},
) as dag:
    dataset_lock() >> inputs() >> make_tasks(TUNE_DENOISER, source="inputs")["tune_denoiser"]
