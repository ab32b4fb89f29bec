"""### Raw reviews in, registered model and recommendations out, every day

A run works on one partition, a day of landing files. Orange tasks are Spark jobs, blue ones Ray jobs; Airflow itself
computes nothing.

`dataset_lock` -> `ingest` -> `sequences` -> `changes` ->
language (`preferences`, `review_summaries`, `denoised_sequences`) ->
`item_vectors` -> `continuation` -> `append_items` or `semantic_ids` -> `train_recommender`, `train_baseline` ->
`champion` -> `evaluate` -> `register` -> `recommendations`; finally `day_report`, also after failures.
If a recipe or `semantic_ids.collaborative` reads them, also `collaborative_vectors` before `semantic_ids`. With
**measure steerability** also `text_vectors` -> `review_sentiments` -> `preference_benchmark` before the training,
and `steerability` before `register`

**Work follows change.** A day without changes ends at `changes`: no calls, no training, no scoring. New items are
appended to the codebook in use; the tokenizer is trained again only if the items have drifted from it, for the reason
in `choose_codebook`. The recommender continues from the version in production. A day that is filled in late updates the
tables of later days, too.

**Rerunning is safe.** Tables are replaced by partition, answers of the language model come from the ledger, the task
attaches to a Ray job with the same inputs and settings, and the same work makes no second model version. To train again
on purpose, trigger with a higher **generation**. A second run of the data set, or a backfill, waits in `dataset_lock`
until the first has ended.

**When a task fails**, its log ends with a message that says what is wrong and what to do. A failed quality gate names
the expectation and shows example rows; the data docs have the rest. Failed and skipped days have a report, too, in the
MLflow experiment *penchant/&lt;data set&gt;/days*.
"""

from dataclasses import replace

from dags import chain
from dags.airflow_dag import new_dag
from dags.branching import changes, choose_codebook, measure_steering
from dags.dataset_lock import dataset_lock
from dags.prepared import champion

with new_dag(
    "daily_retrain",
    "Daily retrain",
    "Raw reviews in, registered model and recommendations out, one partition a day",
    __doc__,
    {
        "dataset": chain.DATASET,
        "partition": chain.PARTITION,
        "tokenizer": chain.TOKENIZER,
        "recommender": chain.RECOMMENDER,
        "generation": chain.GENERATION,
        "overrides": chain.OVERRIDES,
        "leave_out": chain.LEAVE_OUT,
        chain.MEASURED: chain.MEASURE_STEERING,
    },
    every="daily",
    cron="0 3 * * *",
    impact="high",
    deadline=True,
) as dag:
    stages = (stage for group in chain.GROUPS.values() for stage in group)
    measured = (replace(stage, unless=chain.MEASURED) if stage is chain.ITEM_VECTORS else stage for stage in stages)
    tasks = chain.make_tasks(*measured, grouped=True)
    dataset_lock() >> tasks["ingest"]
    changed = changes()
    tasks["sequences"] >> changed
    for task in tasks.values():
        if task.task_id not in ("ingest", "sequences") and task.upstream_task_ids <= {"ingest", "sequences"}:
            changed >> task
    changed >> measure_steering() >> [tasks[stage.task_id] for stage in chain.STEERING]
    choice = choose_codebook.override(task_group=tasks["continuation"].task_group)()
    tasks["continuation"] >> choice >> [tasks["append_items"], tasks["semantic_ids"]]
    reigning = champion.override(task_group=tasks["evaluate"].task_group)()
    tasks["train_recommender"] >> reigning >> [tasks["evaluate"], tasks["steerability"]]
    chain.report_on(dag)
