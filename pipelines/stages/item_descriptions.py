"""Short descriptions of items by a language model, for text encoders and tokenizers. Optional.

Items that landed on the request's day are described. An item delivered again with the same text costs nothing.
"""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, Count, CountOrZero
from infra.settings import Settings
from pipelines.language.ledger_settings import ledger_settings
from pipelines.language.prompts import load_chat_prompt
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

STAGE = "item_descriptions"


@dataclass(frozen=True, kw_only=True)
class ItemDescriptionsSettings(Bounded):
    """Which items are described, and from how much.

    Args:
        max_items: number of items to describe, chosen by hash; 0 for all.
        max_text_words: longer item texts are truncated.
        prompt: name of the prompt file.
    """

    section: ClassVar[str] = STAGE

    max_items: CountOrZero = 0
    max_text_words: Count = 120
    prompt: str = "item_description"


def check(settings: Settings, request: StageRequest) -> None:
    """Refuse a prompt that cannot be read, and a budget without prices."""
    load_chat_prompt(stage_settings(ItemDescriptionsSettings, settings, request).prompt)
    ledger_settings(settings, request)
