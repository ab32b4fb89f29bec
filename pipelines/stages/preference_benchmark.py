"""The benchmark of preference discerning: who is asked what, with which preference, and what would be right.

Five axes after Paischer et al. (2025), arXiv 2412.08604. A preference matched to the target is an oracle, so that every
sample names beside it the newest preference that was known then and another user's as a control. Differences to the
authors' released code: each history ends at its own user's position, no item is the coarse partner of many others, a
rejection is a word of its own, and training samples rest on training reviews only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from infra.bounds import Bounded, Count, PositiveShare
from infra.settings import load_settings, stage_settings
from pipelines.landing.planted_world.truth import require_truth
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stage_runner import run_stage

STAGE = "preference_benchmark"


@dataclass(frozen=True, kw_only=True)
class PreferenceBenchmarkSettings(Bounded):
    """How samples are made.

    Args:
        encoder: whose vectors say which preference is near which item, where no earlier stage of the run names one.
        negative_below: probability of a positive tone under which a review counts as negative; lower takes fewer and
            surer ones.
        coarse_label_cap: an item is the coarse partner of so many others at most.
        unseen_targets: steer towards held-out items only that nobody has at a training position.
        max_targets: targets per axis and split at most, by hash; pairing them takes time and memory on the driver
            that grows with the square.
        max_pool: wordings at most, by hash, among which the likes near an item are sought.
        probe_min_items: items that a property must have to be steered towards.
        truth: folder truth/ of a planted world, whose attributes become probes; nowhere when empty.
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
    seed: int = 7


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `pipelines.preference_benchmark`."""
    settings = load_settings()
    chosen = stage_settings(PreferenceBenchmarkSettings, settings, request)
    if chosen.truth:
        require_truth(Path(chosen.truth))
    from pipelines.preference_benchmark import run as work

    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
