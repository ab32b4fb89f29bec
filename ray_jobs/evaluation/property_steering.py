"""Does a preference for a property raise the share of its items in the lists?

Success, for a user and a property: given a preference for it, its share among the first ten items is above zero and at
least twice what it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.data.catalogue import IntArray
from ray_jobs.evaluation.metrics import doubled
from ray_jobs.evaluation.steering import Past, Question, ask
from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.training.trainable import Notify, silent

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PropertyResult:
    """Shares of a property's items in the lists of some users, float64[U] each.

    Args:
        before: without a preference.
        wanted: with a preference for the property.
        rejected: with a preference against it.
        control: with a preference for another property.
        lists: by the same names, int64[U, 10] catalogue indices.
    """

    name: str
    kind: str
    preference: str
    opposite: str
    users: Sequence[str]
    before: Shares = field(repr=False)
    wanted: Shares = field(repr=False)
    rejected: Shares = field(repr=False)
    control: Shares = field(repr=False)
    lists: Mapping[str, IntArray] = field(repr=False)

    def success(self) -> npt.NDArray[np.bool_]:
        """Success by user, bool[U]."""
        return doubled(self.before, self.wanted)

    def control_success(self) -> npt.NDArray[np.bool_]:
        """The same with a preference for another property: success by chance."""
        return doubled(self.before, self.control)


def steer_to_properties(
    bundle: Bundle,
    properties: Sequence[Mapping[str, Any]],
    pasts: Mapping[str, Past],
    users: int,
    seed: int = 0,
    exclude_seen: bool = False,
    notify: Notify = silent,
) -> list[PropertyResult]:
    """Steer users towards and away from each property.

    Args:
        properties: rows of the table steering_probes.
        users: number of users per property, drawn under `seed`; the model reads their history without the last item.
    """
    ordered = sorted(properties, key=lambda row: (row["kind"], row["probe"]))
    everyone = sorted(user for user, past in pasts.items() if len(past.items) > 1)
    index = bundle.catalogue.index
    results = []
    for number, row in enumerate(ordered):
        rng = np.random.default_rng((seed, number))
        chosen = [everyone[i] for i in sorted(rng.permutation(len(everyone))[:users])]
        others = [other for other in ordered if other["kind"] == row["kind"] and other["probe"] != row["probe"]]
        sentences = {
            "before": "",
            "wanted": row["preference"],
            "rejected": row["opposite"],
            "control": others[int(rng.integers(len(others)))]["preference"] if others else "",
        }
        members = np.zeros(len(index) + 1)  # the last place is for index -1, no item
        members[[index[item] for item in row["item_ids"] if item in index]] = 1
        lists = {
            name: ask(
                bundle,
                [Question(pasts[user], len(pasts[user].items) - 1, sentence) for user in chosen],
                exclude_seen=exclude_seen,
            )[1]
            for name, sentence in sentences.items()
        }
        shares = {name: members[found].mean(axis=1) for name, found in lists.items()}
        results.append(
            PropertyResult(row["probe"], row["kind"], row["preference"], row["opposite"], chosen, **shares, lists=lists)
        )
        notify(number + 1, len(ordered), f"{bundle.recipe}, steering towards {row['probe']}")
    return results


@dataclass(frozen=True)
class KindResult:
    """Means over all properties of one kind, each property with the same weight.

    Args:
        success, control: share of users with success and with success by chance.
        before, wanted, rejected: mean share of the property's items.
    """

    kind: str
    properties: int
    lists: int
    success: float
    control: float
    before: float
    wanted: float
    rejected: float


def summarise_properties(results: Sequence[PropertyResult]) -> list[KindResult]:
    """One summary per kind of property, sorted by kind."""
    summaries = []
    for kind in sorted({result.kind for result in results}):
        same = [result for result in results if result.kind == kind]
        summaries.append(
            KindResult(
                kind,
                len(same),
                sum(len(result.users) for result in same),
                float(np.mean([result.success().mean() for result in same])),
                float(np.mean([result.control_success().mean() for result in same])),
                *(float(np.mean([getattr(r, name).mean() for r in same])) for name in ("before", "wanted", "rejected")),
            )
        )
    return summaries
