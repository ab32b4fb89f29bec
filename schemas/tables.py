"""Every table of the warehouse by name."""

from schemas.denoised_sequences import DENOISED_SEQUENCES
from schemas.erasures import ERASURES
from schemas.interactions import INTERACTIONS
from schemas.item_descriptions import ITEM_DESCRIPTIONS
from schemas.item_vectors import ITEM_VECTORS
from schemas.items import ITEMS
from schemas.llm_responses import LLM_RESPONSES
from schemas.measurements import MEASUREMENTS
from schemas.preference_benchmark import PREFERENCE_BENCHMARK
from schemas.preference_evaluations import PREFERENCE_EVALUATIONS
from schemas.preferences import PREFERENCES
from schemas.quarantine import QUARANTINE
from schemas.recommendations import RECOMMENDATIONS
from schemas.review_sentiments import REVIEW_SENTIMENTS
from schemas.review_summaries import REVIEW_SUMMARIES
from schemas.reviews import REVIEWS
from schemas.semantic_ids import SEMANTIC_IDS
from schemas.sequences import SEQUENCES
from schemas.steering_probes import STEERING_PROBES
from schemas.table import Table
from schemas.text_vectors import TEXT_VECTORS

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        REVIEWS,
        ITEMS,
        INTERACTIONS,
        SEQUENCES,
        LLM_RESPONSES,
        REVIEW_SUMMARIES,
        PREFERENCES,
        DENOISED_SEQUENCES,
        ITEM_DESCRIPTIONS,
        ITEM_VECTORS,
        SEMANTIC_IDS,
        MEASUREMENTS,
        RECOMMENDATIONS,
        TEXT_VECTORS,
        REVIEW_SENTIMENTS,
        PREFERENCE_BENCHMARK,
        STEERING_PROBES,
        PREFERENCE_EVALUATIONS,
        QUARANTINE,
        ERASURES,
    )
}

RETIRED = ("evaluations",)
"""Tables of earlier releases that nobody writes or reads. They hold ids of users: an erasure removes them whole."""
