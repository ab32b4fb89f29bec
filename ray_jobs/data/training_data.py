"""Reads what recommenders train on and are judged by from the warehouse, for one request."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from infra.errors import SettingError
from infra.settings import Settings, stage_settings
from ray_jobs.data import ties
from ray_jobs.data.corrections import Corrections, move_preferences, remove_suspects, replace_suspects
from ray_jobs.data.histories import Catalogue, Histories, read_catalogue, read_histories
from ray_jobs.data.tables import input_partition, input_table, newest_items, table_exists
from ray_jobs.data.ties import Ties, shuffle_ties
from ray_jobs.tokenizers.codebook import Codebook
from schemas.errors import DataError
from schemas.stage_request import StageRequest

CODEBOOK_KEY = "semantic_ids.codebook"


@dataclass(frozen=True, kw_only=True)
class TrainingDataSettings:
    """What recommenders train on.

    Args:
        corrections: what happens to items that the table denoised_sequences suspects: ``none``, ``replace`` by its
            replacements, or ``remove``. Only positions before the validation target are ever suspect.
        ties: ``as_is``, or ``shuffled``: positions of the same time in random order, held-out ones among them. What
            metrics lose by it came from the tie rule. Not together with corrections, which may change a position
            that then is held out.
        ties_seed: of that order.
    """

    corrections: Corrections = Corrections.NONE
    ties: Ties = Ties.AS_IS
    ties_seed: int = 0

    def __post_init__(self) -> None:
        if self.ties is Ties.SHUFFLED and self.corrections is not Corrections.NONE:
            raise SettingError(
                f"training_data.ties is shuffled and training_data.corrections is {self.corrections.value}: set one of "
                "them to its default (as_is, none)"
            )
        if self.ties_seed < 0:
            raise SettingError(f"training_data.ties_seed is {self.ties_seed}: 0 or more is needed")

    @property
    def version(self) -> str:
        """Name of the histories where their targets are others than the table's, else empty."""
        return f"ties-shuffled-{self.ties_seed}" if self.ties is Ties.SHUFFLED else ""


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


def training_data_settings(settings: Settings, request: StageRequest) -> TrainingDataSettings:
    """What the profile and the request say about training data."""
    return stage_settings(TrainingDataSettings, "training_data", settings, request.overrides)


def input_sequences(settings: Settings, request: StageRequest) -> tuple[pa.Table, dict[str, list[int]] | None]:
    """The day's sequences with ties as the settings have them, and, where they were shuffled, what `shuffle_ties` says
    of positions.
    """
    sequences = input_partition(settings, request, "sequences")
    own = training_data_settings(settings, request)
    return (sequences, None) if own.ties is Ties.AS_IS else shuffle_ties(sequences, own.ties_seed)


def read_training_data(settings: Settings, request: StageRequest, codes: bool, preferences: bool) -> TrainingData:
    """Read sequences and items, and codes and preferences where they are wanted.

    Args:
        codes: with the semantic ids of the codebook in ``request.upstream``.
        preferences: with the day's preferences; a data set that has none is no error.

    Raises:
        DataError: a table or the codebook is missing; the message names the stage to run.
    """
    sequences, known_at = input_sequences(settings, request)
    catalogue = read_catalogue(sequences, newest_items(settings, request))
    codebook = request.upstream.get(CODEBOOK_KEY, "") if codes else ""
    if codes:
        catalogue = _with_codes(settings, request, catalogue, codebook)
    known = None
    if preferences and _has_preferences(settings, request):
        day = pc.field("partition_date") == request.partition_date()
        known = input_table(settings, request, "preferences", ["user_id", "position", "preferences"], day)
        known = known if known_at is None else ties.move_preferences(known, known_at)
    own = training_data_settings(settings, request)
    how = own.corrections
    if how is not Corrections.NONE:
        denoised = input_partition(settings, request, "denoised_sequences")
        if how is Corrections.REPLACE:
            sequences = replace_suspects(sequences, denoised)
        else:
            sequences, left_out = remove_suspects(sequences, denoised)
            known = None if known is None else move_preferences(known, left_out)
    return TrainingData(catalogue, read_histories(sequences, catalogue, known), codebook, own.version)


def _has_preferences(settings: Settings, request: StageRequest) -> bool:
    return "preferences" in request.inputs or table_exists(settings.table_uri(request.dataset, "preferences"))


def _with_codes(settings: Settings, request: StageRequest, catalogue: Catalogue, version: str) -> Catalogue:
    if not version:
        raise DataError(
            f"recipe {request.recipe} needs semantic ids, and the request names no codebook: run the semantic_ids "
            f'stage and pass its output on, --upstream \'{{"{CODEBOOK_KEY}": "<version>"}}\''
        )
    rows = input_table(settings, request, "semantic_ids", None, pc.field("codebook") == version)
    book = Codebook.from_table(rows, version)
    return catalogue.with_codes(dict(zip(book.item_ids, book.codes.tolist(), strict=True)), book.level_sizes)
