"""The vectors that a codebook codes if they are more than those of texts: fitted, stored, and read again.

What an item once got stays: a later text or teacher changes neither its vector nor its codes.
"""

import numpy as np
import pyarrow as pa

from infra.errors import SettingError
from infra.settings import Settings
from ray_jobs.data.learned_vectors import coded_vectors, teacher_vectors
from ray_jobs.data.settings import TEACHER_KEY
from ray_jobs.data.tables import publish, upsert
from ray_jobs.tokenizers import fusion
from ray_jobs.tokenizers.fusion import Fusion, Parts
from ray_jobs.tokenizers.vectors import ArrayVectors, Floats, Vectors, lists
from schemas.errors import DataError
from schemas.fused_vectors import FUSED_VECTORS
from schemas.handoff import Handoff
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
    settings: Settings, request: StageRequest, kind: str, item_ids: list[str], texts: Floats
) -> tuple[Fusion, str, Parts]:
    """A new fusion with the request's teacher, the teacher's name, and the parts of all items.

    Raises:
        DataError: the request names no teacher, or it knows none of the items.
    """
    known = teacher_vectors(settings, request, item_ids)
    teacher = request.upstream[TEACHER_KEY]
    if not known.any():
        raise DataError(f"teacher {teacher} knows none of the {len(item_ids)} items")
    made = fusion.join(kind, texts, known)
    return made, teacher, made.parts(texts, known)


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
