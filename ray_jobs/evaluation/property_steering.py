"""Does a preference for X bring more of X? Share of the lists before and after, for properties whose items are known.

Success, of a user and a property X: the share of X among the first ten items rises at least twofold when a preference
for X is given, and is above zero then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.data.catalogue import IntArray
from ray_jobs.evaluation.steering import Past, Question, ask
from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.training.trainable import Notify, silent

Shares = npt.NDArray[np.float64]
TIMES = 2.0


@dataclass(frozen=True)
class PropertyResult:
    """Shares of a property's items in the lists of some users, float64[U] each.

    Args:
        before: with no preference.
        wanted: with a preference for the property.
        rejected: with a preference against it.
        control: with a preference for another property.
        lists: by what was given, int64[U, 10] catalogue indices.
    """

    probe: str
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
        """Whose share rose at least twofold, bool[U]."""
        return _doubled(self.before, self.wanted)

    def control_success(self) -> npt.NDArray[np.bool_]:
        """The same under a preference for another property: what chance gives."""
        return _doubled(self.before, self.control)


def _doubled(before: Shares, after: Shares) -> npt.NDArray[np.bool_]:
    return (after > 0) & (after >= TIMES * before)


def steer_to_properties(
    bundle: Bundle,
    probes: Sequence[Mapping[str, Any]],
    pasts: Mapping[str, Past],
    users: int,
    seed: int = 0,
    exclude_seen: bool = False,
    notify: Notify = silent,
) -> list[PropertyResult]:
    """Steer users towards and away from each property of `probes` (rows of the table steering_probes).

    Args:
        users: how many are steered per property, drawn under `seed`; each reads their whole history but the last item.
    """
    ordered = sorted(probes, key=lambda row: (row["kind"], row["probe"]))
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
        members = np.zeros(len(index) + 1)  # the last place stands for index -1, no item
        members[[index[item] for item in row["item_ids"] if item in index]] = 1
        lists = {}
        for name, sentence in sentences.items():
            asked = [Question(pasts[user], len(pasts[user].items) - 1, sentence) for user in chosen]
            parts = [found for _, found in ask(bundle, asked, None, exclude_seen)]
            lists[name] = np.concatenate(parts)
        shares = {name: members[found].mean(axis=1) for name, found in lists.items()}
        results.append(
            PropertyResult(row["probe"], row["kind"], row["preference"], row["opposite"], chosen, **shares, lists=lists)
        )
        notify(number + 1, len(ordered), f"{bundle.recipe}, steering towards {row['probe']}")
    return results


@dataclass(frozen=True)
class KindResult:
    """Means over all users of all properties of one kind, each property weighing the same.

    Args:
        success, control: share of lists in which the property's share rose twofold, given it and given another.
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
