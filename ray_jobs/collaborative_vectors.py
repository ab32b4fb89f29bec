"""The work of `ray_jobs.stages.collaborative_vectors`: name the teacher, train it if it is new, keep its vectors."""

import hashlib
from dataclasses import asdict
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.progress import Progress, phased
from infra.settings import Settings, load_settings
from ray_jobs import cluster
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.day_sequences import input_sequences, training_rows
from ray_jobs.data.examples import training_examples
from ray_jobs.data.histories import Histories
from ray_jobs.data.rows import Rows
from ray_jobs.data.tables import count_rows, handoff_of, open_table, publish, table_exists
from ray_jobs.data.vector_columns import lists
from ray_jobs.registry import runs
from ray_jobs.stages.collaborative_vectors import STAGE, CollaborativeVectorsSettings
from ray_jobs.tokenizers.vectors import Floats
from ray_jobs.train import log_live
from ray_jobs.training.curves import metric_rows
from ray_jobs.training.plan import Plan
from ray_jobs.training.ray_train import Outcome, train
from schemas.collaborative_vectors import COLLABORATIVE_VECTORS
from schemas.delta import partition_filter
from schemas.errors import DataError
from schemas.handoff import StageReport
from schemas.run_identity import config_hash
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

TEACHER = "sasrec"
REVISION = 1
"""Raise it with a change of the code after which the same histories and settings give other vectors."""


def run(request: StageRequest) -> StageReport:
    """Publish the vectors of the teacher of the request's day, unless they are there.

    Raises:
        DataError: there are no sequences, or none of two training positions.
    """
    settings = load_settings()
    own = stage_settings(CollaborativeVectorsSettings, settings, request)
    progress = Progress(settings.home, STAGE)
    progress.update(0, 1, "reading histories")
    sequences, _ = input_sequences(settings, request)
    item_ids, histories = training_part(sequences)
    teacher = teacher_name(own, item_ids, histories, request.generation)
    uri, partition = settings.table_uri(request.dataset, COLLABORATIVE_VECTORS.name), {"teacher": teacher}
    counts: dict[str, float] = {"users": len(histories), "items": len(item_ids)}
    outputs = {"teacher": teacher}
    if table_exists(uri) and (rows := count_rows(opened := open_table(uri), partition_filter(partition))):
        progress.update(1, 1, f"{teacher} is there")
        handoff = handoff_of(COLLABORATIVE_VECTORS, uri, int(opened.version()), rows)
        return StageReport(
            stage=STAGE, status="reused", handoffs={handoff.table: handoff}, counts=counts, outputs=outputs
        )
    run_id = runs.find_or_start(
        settings, request, f"teacher {teacher}", asdict(own), {"penchant.teacher": teacher, "recipe": TEACHER}
    )
    with runs.finishing(run_id):
        outcome = trained(settings, request, teacher_plan(own, item_ids, histories), teacher, run_id)
        runs.log_metrics(run_id, metric_rows(outcome.state.records, outcome.state.curve))
    vectors = vectors_in(outcome)
    table = pa.table({"item_id": pa.array(item_ids, pa.string()), "vector": lists(vectors)})
    handoff = publish(table, COLLABORATIVE_VECTORS, uri, partition, request.identity())
    counts |= {"steps": outcome.state.step, "loss": round(outcome.state.records[-1]["loss"], 6)}
    progress.update(1, 1, f"{len(item_ids):,} items have a collaborative vector")
    return StageReport(
        stage=STAGE,
        status="done",
        handoffs={handoff.table: handoff},
        counts=counts,
        outputs={**outputs, "mlflow_run_id": run_id},
    )


def training_part(sequences: pa.Table) -> tuple[tuple[str, ...], Histories]:
    """The items at training positions, sorted, and the histories without everything that is held out.

    What is held out is not there any more, so that nothing can learn from it.
    """
    chunks = [chunk.flatten().cast(pa.string()) for chunk in sequences["item_ids"].chunks]
    everything = pc.unique(pa.chunked_array(chunks, pa.string()))
    everything = everything.take(pc.sort_indices(everything))
    rows = training_rows(sequences, everything)
    used, places = np.unique(rows.values, return_inverse=True)
    histories = Histories.of_training(Rows(places.astype(np.int64), rows.offsets))
    return tuple(everything.take(pa.array(used)).to_pylist()), histories


def teacher_name(
    own: CollaborativeVectorsSettings, item_ids: tuple[str, ...], histories: Histories, generation: int
) -> str:
    """Name of the teacher: the same for the same items in the same order user by user, settings and revision."""
    items = Rows.of(histories.items)
    digest = hashlib.sha256("\n".join(item_ids).encode())
    for part in (items.offsets, items.values):
        digest.update(np.ascontiguousarray(part).tobytes())
    made = {"data": digest.hexdigest(), "settings": asdict(own), "revision": REVISION}
    return f"{TEACHER}-{config_hash(made)}-g{generation}"


def teacher_plan(own: CollaborativeVectorsSettings, item_ids: tuple[str, ...], histories: Histories) -> Plan:
    """The training of the teacher.

    Raises:
        DataError: no history has two training positions.
    """
    examples = training_examples(histories, own.max_history, every_prefix=False)
    if not len(examples):
        raise DataError("no history has two training positions, so that there is nothing to learn from")
    return Plan(TEACHER, own.recipe(own.width), Catalogue(item_ids, item_ids, item_ids), examples, None)


@phased("training the teacher", lambda outcome: {"steps": outcome.state.step})
def trained(settings: Settings, request: StageRequest, plan: Plan, teacher: str, run_id: str) -> Outcome:
    """The outcome of `plan`, of an earlier try if it ended."""
    cluster.connect()
    return train(
        plan,
        settings.ray,
        run_name=request.identity().key(),
        home=settings.home,
        stage=STAGE,
        fingerprint=teacher,
        observer=partial(log_live, settings, run_id),
    )


def vectors_in(outcome: Outcome) -> Floats:
    """The item vectors float32[N, d] of a trained teacher.

    Raises:
        DataError: they are no numbers.
    """
    vectors: Floats = outcome.state.trained["items.weight"][1:].float().numpy()
    if not np.isfinite(vectors).all():
        raise DataError(f"the teacher diverged: lower {STAGE}.learning_rate")
    return vectors
