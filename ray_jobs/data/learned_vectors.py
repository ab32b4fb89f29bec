"""Item vectors that stages have learned, read for tokenizers and recipes: the teacher's, and those of a codebook."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.settings import Settings
from ray_jobs.data.settings import CODEBOOK_KEY, TEACHER_KEY
from ray_jobs.data.tables import input_version, read_table
from ray_jobs.data.vector_columns import Floats, matrix
from schemas.collaborative_vectors import COLLABORATIVE_VECTORS
from schemas.errors import DataError
from schemas.fused_vectors import FUSED_VECTORS
from schemas.recipes import Need, learned_vectors
from schemas.stage_request import StageRequest


def teacher_vectors(settings: Settings, request: StageRequest, item_ids: Sequence[str]) -> Floats:
    """Vectors float32[N, d] of the teacher that ``request.upstream`` names; zero for an item that it never met.

    Raises:
        DataError: the request names no teacher, or the table has no vectors of it.
    """
    teacher = request.upstream.get(TEACHER_KEY, "")
    if not teacher:
        raise DataError(
            "the request names no teacher: run the stage collaborative_vectors and pass its output on, "
            f'--upstream \'{{"{TEACHER_KEY}": "<name>"}}\''
        )
    rows = read_table(
        *input_version(settings, request, COLLABORATIVE_VECTORS.name), filters=pc.field("teacher") == teacher
    )
    return placed(rows, "vector", item_ids, f"collaborative_vectors has no vector of teacher {teacher}")


def coded_vectors(uri: str, version: int | None, codebook: str, item_ids: Sequence[str]) -> tuple[Floats, Floats]:
    """The parts float32[N, d], collaborative and text, of the vectors that a codebook codes; zero for other items.

    Args:
        uri, version: of the table; None for its newest version.

    Raises:
        DataError: the codebook codes nothing but text vectors.
    """
    rows = read_table(uri, version, filters=pc.field("codebook") == codebook)
    why = f"codebook {codebook} codes text vectors alone: set semantic_ids.collaborative and fit one"
    return placed(rows, "collaborative", item_ids, why), placed(rows, "text", item_ids, why)


def read_vectors(
    settings: Settings, request: StageRequest, needs: Collection[Need], item_ids: Sequence[str]
) -> dict[str, Floats]:
    """What `needs` ask for, as `Catalogue.vectors`.

    Raises:
        DataError: it is missing; the message names the stage or the setting.
    """
    return dict(_read(settings, request, needs, item_ids))


def _read(
    settings: Settings, request: StageRequest, needs: Collection[Need], item_ids: Sequence[str]
) -> Iterator[tuple[str, Floats]]:
    if Need.COLLABORATIVE_VECTORS in needs:
        yield from _named(Need.COLLABORATIVE_VECTORS, teacher_vectors(settings, request, item_ids))
    if Need.FUSED_VECTORS in needs:
        table = input_version(settings, request, FUSED_VECTORS.name)
        yield from _named(Need.FUSED_VECTORS, *coded_vectors(*table, request.upstream.get(CODEBOOK_KEY, ""), item_ids))


def _named(need: Need, *parts: Floats) -> Iterator[tuple[str, Floats]]:
    return zip(learned_vectors([need]), parts, strict=True)


def placed(rows: pa.Table, column: str, item_ids: Sequence[str], without: str) -> Floats:
    """The vectors of `column` in the order of `item_ids`, float32[N, D]; zero for items without a row.

    Raises:
        DataError: there is no row, with the message `without`.
    """
    if rows.num_rows == 0:
        raise DataError(without)
    there = matrix(rows[column])
    places = pc.index_in(pa.array(item_ids, pa.string()), rows["item_id"].combine_chunks().cast(pa.string()))
    known = places.is_valid().to_numpy(zero_copy_only=False)
    found = np.zeros((len(item_ids), there.shape[1]), np.float32)
    found[known] = there[places.drop_null().to_numpy()]
    return found
