"""Rank every user's held-out item against the whole catalogue: trained model, baseline, popularity and champion.

The champion is the registered version that the request names; it may be of an earlier day and lack items of this one.

Per-user metrics go to the table ``measurements``, one partition per day, task and model. Each row names the protocol:
which items ``training_data`` holds out and ranks, and whether items of the history are excluded. Numbers of different
protocols are not compared. The models' MLflow runs get means with 95 % bootstrap intervals, the paired difference to
popularity, coverage and popularity of the lists, and the slices, under the same names for every recipe.

Items of the history are excluded, as in serving and in early stopping. Two more groups of metrics are logged: those
with all items ranked, as published, under ``test.all_items``, and under ``test.words`` how far words move the lists,
which the promotion gate checks.
"""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, CountOrZero, Positive, Seed

STAGE = "evaluate"


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(Bounded):
    """Settings of the stage.

    Args:
        exclude_seen: exclude items of the history from the ranking, as serving does.
        all_items: also rank all items, as published, on the test split; not in the table. Costs one more pass.
        word_users, words: users and words for which the lists are tested; 0 skips the test.
        sampled_negatives: also rank among this many sampled items, as some papers do; the metrics are named
            ``sampled_...`` and are not in the table. 0 skips this.
        seed: of the sampled items and users.
        actors: copies of the model that rank in parallel on the Ray cluster; 0 ranks in the stage's own process, which
            is faster for some thousand users.
        cpus_per_actor: cores of each copy.
    """

    section: ClassVar[str] = STAGE

    exclude_seen: bool = True
    all_items: bool = True
    word_users: CountOrZero = 60
    words: CountOrZero = 20
    sampled_negatives: CountOrZero = 0
    seed: Seed = 0
    actors: CountOrZero = 0
    cpus_per_actor: Positive = 1
