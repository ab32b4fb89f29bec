"""The vectors that a codebook codes if they are more than those of texts: fitted, stored, and read again.

What an item once got stays: a later text or teacher changes neither its vector nor its codes.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.errors import SettingError
from infra.settings import Settings
from ray_jobs.data.histories import Histories
from ray_jobs.data.learned_vectors import coded_vectors, teacher_vectors
from ray_jobs.data.rows import Rows, offsets_of
from ray_jobs.data.settings import TEACHER_KEY
from ray_jobs.data.tables import publish, upsert
from ray_jobs.data.vector_columns import lists
from ray_jobs.tokenizers import fusion
from ray_jobs.tokenizers.alignment import align, alignment_plan
from ray_jobs.tokenizers.fusion import Fusion, Parts
from ray_jobs.tokenizers.settings import AlignmentSettings
from ray_jobs.tokenizers.vectors import ArrayVectors, Floats, Vectors
from schemas.errors import DataError
from schemas.fused_vectors import FUSED_VECTORS
from schemas.handoff import Handoff
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest


def in_memory(texts: Vectors) -> Floats:
    """The text vectors float32[N, D].

    Raises:
        SettingError: they are streamed.
    """
    if not isinstance(texts, ArrayVectors):
        raise SettingError(
            f"semantic_ids.collaborative needs all {texts.shape[0]:,} vectors in memory: raise "
            "semantic_ids.in_memory_rows, or set it to none"
        )
    return texts.array


def fitted(
    settings: Settings, request: StageRequest, kind: str, item_ids: list[str], texts: Floats, sequences: Rows
) -> tuple[Fusion, str, Parts]:
    """A new fusion with the request's teacher, the teacher's name, and the parts of all items.

    Args:
        sequences: rows of the items at training positions, user by user.

    Raises:
        DataError: the request names no teacher, or it knows none of the items.
    """
    known = teacher_vectors(settings, request, item_ids)
    teacher = request.upstream[TEACHER_KEY]
    if not known.any():
        raise DataError(f"teacher {teacher} knows none of the {len(item_ids)} items")
    if kind != "fused":
        made: Fusion = fusion.join(kind, texts, known)
        return made, teacher, made.parts(texts, known)
    own = stage_settings(AlignmentSettings, settings, request)
    met = fusion.has_one(known)
    histories = Histories.of_training(renumbered(sequences, met))
    plan = alignment_plan(own, histories, texts[met], known[met])
    made, vectors = align(plan, settings.ray, request.identity().key(), settings.home, request.stage)
    known[met] = vectors
    return made, teacher, made.parts(texts, known)


def renumbered(rows: Rows, only: npt.NDArray[np.bool_]) -> Rows:
    """`rows` of indices without those that are not in `only`, as indices among the rest."""
    kept = only[rows.values]
    owners = np.repeat(np.arange(len(rows)), rows.lengths)[kept]
    return Rows((np.cumsum(only) - 1)[rows.values[kept]], offsets_of(np.bincount(owners, minlength=len(rows))))


def grown(
    settings: Settings, request: StageRequest, version: str, made: Fusion, item_ids: list[str], texts: Floats
) -> Parts:
    """The stored parts of the items of a codebook; those of other items from their texts.

    Raises:
        DataError: the codebook's vectors are missing.
    """
    uri = settings.table_uri(request.dataset, FUSED_VECTORS.name)
    collaborative, text = coded_vectors(uri, None, version, item_ids)
    there = fusion.has_one(collaborative)[:, None]
    new = made.parts(texts, np.zeros_like(collaborative))
    return np.where(there, collaborative, new[0]), np.where(there, text, new[1])


def side_by_side(parts: Parts) -> ArrayVectors:
    """The vectors to code."""
    return ArrayVectors(np.concatenate(parts, axis=1))


def store(
    settings: Settings, request: StageRequest, version: str, item_ids: list[str], parts: Parts, new: bool
) -> Handoff:
    """Write the parts as those of the codebook `version`, which is `new`, or got some items."""
    collaborative, text = parts
    columns = {"item_id": pa.array(item_ids, pa.string()), "collaborative": lists(collaborative), "text": lists(text)}
    write = publish if new else upsert
    uri = settings.table_uri(request.dataset, FUSED_VECTORS.name)
    return write(pa.table(columns), FUSED_VECTORS, uri, {"codebook": version}, request.identity())
