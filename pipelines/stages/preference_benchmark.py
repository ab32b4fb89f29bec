"""The benchmark of preference discerning: histories, preferences given with them, and the right items.

Five axes after Paischer et al. (2025), arXiv 2412.08604. A preference matched to the target is an oracle; every sample
therefore also has the newest preference known at the time, and another user's as a control. Differences to the authors'
released code: each history ends at its own user's position, an item is the coarse partner of few others, a rejection is
a verb of its own, and training samples rest on training reviews only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from infra.bounds import Bounded, Count, PositiveShare, Seed
from infra.settings import Settings
from pipelines.landing.planted_world.truth import require_truth
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

STAGE = "preference_benchmark"


@dataclass(frozen=True, kw_only=True)
class PreferenceBenchmarkSettings(Bounded):
    """How samples are made.

    Args:
        encoder: encoder whose vectors match preferences to items, unless an earlier stage of the run names one.
        negative_below: a review with a lower probability of a positive tone counts as negative; a lower value selects
            fewer and more certain ones.
        coarse_label_cap: how many items an item may be the coarse partner of.
        unseen_targets: steer only towards held-out items that are at no user's training position.
        max_targets: most targets per axis and split, chosen by hash; the driver's time and memory for pairing them
            grow quadratically.
        max_pool: most likes, chosen by hash, that are compared with an item.
        probe_min_items: least number of items with a property that users are steered towards.
        truth: folder truth/ of a planted world, whose attributes become probes; empty for none.
        seed: of all choices by hash.
    """

    section: ClassVar[str] = STAGE

    encoder: str = "minilm-l6-v2"
    negative_below: PositiveShare = 0.5
    coarse_label_cap: Count = 5
    unseen_targets: bool = False
    max_targets: Count = 20_000
    max_pool: Annotated[int, Field(ge=3)] = 100_000
    probe_min_items: Count = 10
    truth: str = ""
    seed: Seed = 7


def check(settings: Settings, request: StageRequest) -> None:
    """Refuse a truth that cannot be read."""
    truth = stage_settings(PreferenceBenchmarkSettings, settings, request).truth
    if truth:
        require_truth(Path(truth))
