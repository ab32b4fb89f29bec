"""Rank every user's held-out item against the whole catalogue: trained model, baseline, popularity and champion.

The champion is the registered version that the request names; it may be of an earlier day and lack items of this one.

Metrics of each user go to the table ``measurements``, one partition per day, task and model, with the protocol that
they come from: which items ``training_data`` holds out and ranks, and whether those of the history are left out.
Numbers of two protocols are not compared. The models' MLflow runs get means with 95 % bootstrap intervals, the paired
difference to popularity, coverage and popularity of what is recommended, and the slices: under the same names for every
recipe, so that runs compare. Models run in this process.

What serving leaves out, the items of the history, is left out here, too, as it is when training stops early. What the
published protocol says, which ranks all items, stands beside it under ``test.all_items``; how far words move the lists,
which the promotion gate asks, under ``test.words``.
"""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, CountOrZero
from infra.settings import load_settings, stage_settings
from ray_jobs.data.settings import training_data_settings
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stage_runner import engine_is_ready, run_stage

STAGE = "evaluate"


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(Bounded):
    """Settings of the stage.

    Args:
        exclude_seen: leave items of the history out of the ranking, as serving does.
        all_items: also rank all items, as published, on the test split; not in the table. One more pass over its users.
        word_users, words: users whose lists are asked to follow words, and how many words; 0 leaves it.
        sampled_negatives: also rank among so many sampled items, as some papers do; the metrics are then named
            ``sampled_...`` and stay out of the table. 0 leaves it.
        seed: of the sampled items and of the users.
    """

    section: ClassVar[str] = STAGE

    exclude_seen: bool = True
    all_items: bool = True
    word_users: CountOrZero = 60
    words: CountOrZero = 20
    sampled_negatives: CountOrZero = 0
    seed: int = 0


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `ray_jobs.evaluate`."""
    settings = load_settings()
    stage_settings(EvaluateSettings, settings, request)
    training_data_settings(settings, request)
    from ray_jobs.evaluate import run as work

    engine_is_ready()
    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
