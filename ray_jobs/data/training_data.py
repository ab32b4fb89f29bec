"""Reads the data for training and evaluating recommenders from the warehouse."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import pyarrow.compute as pc

from infra.progress import phased
from infra.settings import Settings
from ray_jobs.data.catalogue import Catalogue, read_catalogue
from ray_jobs.data.corrections import remove_suspects, replace_suspects
from ray_jobs.data.day_sequences import input_sequences
from ray_jobs.data.day_states import input_partition, input_state
from ray_jobs.data.histories import Histories, read_histories
from ray_jobs.data.learned_vectors import read_vectors
from ray_jobs.data.settings import CODEBOOK_KEY, training_data_settings
from ray_jobs.data.tables import has_table, input_table, newest_items
from ray_jobs.data.ties import move_preferences
from ray_jobs.tokenizers.codebook import Codebook
from schemas.errors import DataError
from schemas.recipes import Need
from schemas.stage_request import StageRequest


@dataclass(frozen=True)
class TrainingData:
    """Catalogue and histories of the request's day.

    Args:
        codebook: version of the semantic ids in the catalogue, empty without them.
        version: `TrainingDataSettings.version`.
    """

    catalogue: Catalogue
    histories: Histories
    codebook: str
    version: str = ""


@phased("reading histories and items", lambda data: {"users": len(data.histories), "items": len(data.catalogue)})
def read_training_data(settings: Settings, request: StageRequest, needs: Collection[Need] = ()) -> TrainingData:
    """Read sequences and items, and what `needs` ask for beside them.

    Args:
        needs: codes are those of the codebook in ``request.upstream``; preferences and summaries of reviews are read
            if the request has any; other needs have tables of their own.

    Raises:
        DataError: a table or the codebook is missing; the message names the stage to run.
    """
    sequences, known_at = input_sequences(settings, request)
    own = training_data_settings(settings, request)
    catalogue = read_catalogue(sequences, newest_items(settings, request), own.catalogue == "all")
    codebook = request.upstream.get(CODEBOOK_KEY, "") if Need.CODES in needs else ""
    if Need.CODES in needs:
        catalogue = _with_codes(settings, request, catalogue, codebook)
    if learned := read_vectors(settings, request, needs, catalogue.item_ids):
        catalogue = replace(catalogue, vectors=learned)
    known = None
    read_preferences = not {Need.PREFERENCES, Need.PAST_PREFERENCES}.isdisjoint(needs)
    if read_preferences and has_table(settings, request, "preferences"):
        known = input_state(settings, request, "preferences", ["user_id", "position", "preferences"])
        known = known if known_at is None else move_preferences(known, known_at)
    said = None
    if Need.REVIEW_SUMMARIES in needs and has_table(settings, request, "review_summaries"):
        said = input_state(settings, request, "review_summaries", ["user_id", "as_of", "summary"])
    if own.corrections != "none":
        denoised = input_partition(settings, request, "denoised_sequences")
        if own.corrections == "replace":
            sequences = replace_suspects(sequences, denoised)
        else:
            sequences, known_at = remove_suspects(sequences, denoised)
            known = None if known is None else move_preferences(known, known_at)
    histories = read_histories(sequences, catalogue, known, said)
    if own.catalogue == "all":
        catalogue = replace(catalogue, interacted=histories.interacted(len(catalogue)))
    return TrainingData(catalogue, histories, codebook, own.version)


def _with_codes(settings: Settings, request: StageRequest, catalogue: Catalogue, version: str) -> Catalogue:
    if not version:
        raise DataError(
            f"recipe {request.recipe} needs semantic ids, and the request names no codebook: run the semantic_ids "
            f'stage and pass its output on, --upstream \'{{"{CODEBOOK_KEY}": "<version>"}}\''
        )
    rows = input_table(settings, request, "semantic_ids", None, pc.field("codebook") == version)
    book = Codebook.from_table(rows, version)
    return catalogue.with_codes(dict(zip(book.item_ids, book.codes.tolist(), strict=True)), book.level_sizes)
