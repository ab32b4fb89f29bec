"""Short descriptions of items by a language model, for text encoders and tokenizers. Optional.

Items that landed on the request's day are described. An item delivered again with the same text costs nothing.
"""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, Count, CountOrZero
from infra.settings import load_settings
from pipelines.language.ledger_settings import ledger_settings
from pipelines.language.prompts import load_chat_prompt
from schemas.handoff import StageReport
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest
from schemas.stage_runner import run_stage

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


def run(request: StageRequest) -> StageReport:
    """Check the settings before an engine is loaded, then run `pipelines.item_descriptions`."""
    settings = load_settings()
    chosen = stage_settings(ItemDescriptionsSettings, settings, request)
    load_chat_prompt(chosen.prompt)
    ledger_settings(settings, request)
    from pipelines.item_descriptions import run as work

    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
