"""Champion or challenger: checks with a number, a bar and a verdict each, and the decision that follows from them.

Pure: what is measured comes in, nothing is read or written here.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.evaluation.metrics import FloatArray, non_inferior, paired
from schemas.model_versions import KEPT, PROMOTED, WAITING

PASSED, FAILED, UNKNOWN, REPORTED = "passed", "failed", "not measured", "reported"
QUALITY, STEERING = "NDCG@10 beside the champion", "steerability"
KNOWN_USERS = "NDCG@10 of users from the champion's day"
PLACES = 4
"""Decimal places of NDCG@10 on the pages."""
BASELINE, WORDS = "NDCG@10 beside the baseline", "follows words"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition of a promotion.

    Args:
        name: what is compared.
        challenger, champion: their numbers; None where there is none.
        bar: what `challenger` is held against, or the end of its interval; None where nothing is asked.
        verdict: ``passed``, ``failed``, ``not measured`` or ``reported``.
        note: the numbers as a sentence without its full stop.
        required: a verdict ``not measured`` blocks, too.
        by_interval: the lower end of the paired difference's interval decides, as `note` says.
        waits: failed, it leaves the challenger waiting: a person may want it for what it does better.
        told: `note` is part of the decision's reason, whatever the other checks say.
    """

    name: str
    challenger: float | None = None
    champion: float | None = None
    bar: float | None = None
    verdict: str
    note: str
    required: bool = False
    by_interval: bool = False
    waits: bool = False
    told: bool = False

    @property
    def blocks(self) -> bool:
        """Whether there is no promotion because of it."""
        return self.verdict == FAILED or (self.required and self.verdict == UNKNOWN)


@dataclass(frozen=True)
class Decision:
    """Whether the challenger becomes champion, and every number that was looked at."""

    checks: tuple[Check, ...]

    @property
    def promote(self) -> bool:
        """Whether no check blocks."""
        return not any(check.blocks for check in self.checks)

    @property
    def word(self) -> str:
        """``promoted``, ``kept``, or ``waiting`` where only what was not measured yet, or may wait, is in the way."""
        if self.promote:
            return PROMOTED
        return KEPT if any(check.verdict == FAILED and not check.waits for check in self.checks) else WAITING

    @property
    def reason(self) -> str:
        """What has to be told, and the numbers that failed; where none did, those that passed."""
        promoted = self.promote
        chosen = [
            check for check in self.checks if check.told or (check.verdict == PASSED if promoted else check.blocks)
        ]
        return "; ".join(check.note for check in chosen)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {"decision": self.word, "reason": self.reason, "checks": [asdict(check) for check in self.checks]}


def _verdict(holds: bool) -> str:
    return PASSED if holds else FAILED


def refused(name: str, note: str) -> Check:
    """A check that cannot be passed, whatever is measured."""
    return Check(name=name, verdict=FAILED, note=note)


def above_popularity(own: float, popularity: float) -> Check:
    """NDCG@10 of the challenger against that of recommending what is popular."""
    holds = own > popularity
    note = f"NDCG@10 {own:.4f} is {'' if holds else 'not '}above popularity's {popularity:.4f}"
    return Check(name="NDCG@10 above popularity", challenger=own, bar=popularity, verdict=_verdict(holds), note=note)


def beside_baseline(new: FloatArray, old: FloatArray, margin: float, recipe: str, baseline: str) -> Check:
    """NDCG@10 of a recommender against that of the best baseline trained beside it, over the same users.

    The means decide, and the interval of the paired difference is told: over some hundred users it is wider than a
    tenth of the mean, so that its lower end would refuse most recommenders that are as good, and its upper end pass
    most that are worse. Whoever looks at the page compares the means, so they count to the four places shown there.

    Args:
        new, old: NDCG@10 per user, [U] each, in one order.
        margin: share of the baseline's mean.
        recipe, baseline: how the two are called.
    """
    own, before = float(np.mean(new)), float(np.mean(old))
    bar = (1 - margin) * before
    holds = round(own, PLACES) >= round(bar, PLACES)
    found = paired(new, old)
    gap = found.difference
    note = (
        f"NDCG@10 {own:.4f} of {recipe} is {'not below' if holds else 'below'} {baseline}'s {before:.4f}"
        f"{f' less {margin:.0%}' if margin else ''} (difference {gap.mean:+.4f}, {gap.low:+.4f} to {gap.high:+.4f}, "
        f"{found.users:,} users)"
    )
    return Check(
        name=f"NDCG@10 beside {baseline}, the baseline", challenger=own, bar=bar, verdict=_verdict(holds), note=note
    )


def in_place_of(lost: Check, own: float, recipe: str, baseline: str) -> Check:
    """Why a baseline is registered: the check `lost` that the recommender beside it failed.

    Args:
        own: the baseline's NDCG@10.
    """
    note = f"{baseline}, trained beside {recipe}, is registered instead: {lost.note}"
    name = f"registered instead of {recipe}"
    return Check(name=name, challenger=own, bar=lost.challenger, verdict=PASSED, note=note, told=True)


def quality(new: FloatArray, old: FloatArray, margin: float, named: str, name: str = QUALITY) -> Check:
    """NDCG@10 not worse than the champion's on the same day, by a paired bootstrap over the same users.

    A champion that finds nothing has nothing to lose.

    Args:
        new, old: NDCG@10 per user, [U] each, in one order.
        margin: share of the champion's mean.
        named: how the champion is called in the note.
    """
    before = float(np.mean(old))
    holds, found = non_inferior(new, old, margin * before)
    holds = holds or before == 0
    gap, bar = found.difference, -margin * before
    note = (
        f"NDCG@10 {float(np.mean(new)):.4f} against {before:.4f} of {named}, {found.users:,} users: the difference "
        f"{gap.mean:+.4f} may be as low as {gap.low:+.4f}, {'above' if holds else 'not above'} {bar:+.4f}"
    )
    return Check(
        name=name,
        challenger=float(np.mean(new)),
        champion=before,
        bar=before + bar,
        verdict=_verdict(holds),
        note=note,
        by_interval=True,
    )


def known_users(new: FloatArray, old: FloatArray, known: npt.NDArray[np.bool_], margin: float, named: str) -> Check:
    """`quality` over the users whom the champion's day had, too.

    Accounts that came since, of a campaign for some items, say, may be served so well that the mean over everybody
    rises while the others are served worse.

    Args:
        known: whether the champion's day had the user, bool[U].
    """
    if not known.any():
        return Check(name=KNOWN_USERS, verdict=UNKNOWN, note="no evaluation of the champion's day has one of the users")
    return quality(new[known], old[known], margin, f"{named}, among users from its day", KNOWN_USERS)


def coverage(own: float | None, champion: float | None, share: float) -> Check:
    """Share of the catalogue in some list against the champion's.

    Args:
        share: of the champion's, that may be lost.
    """
    name = "coverage of ten"
    if own is None or champion is None:
        return Check(name=name, challenger=own, champion=champion, verdict=UNKNOWN, note="coverage was not measured")
    bar = (1 - share) * champion
    holds = own >= bar
    note = f"coverage {own:.4f} is {'not below' if holds else 'below'} {bar:.4f} (champion {champion:.4f})"
    return Check(name=name, challenger=own, champion=champion, bar=bar, verdict=_verdict(holds), note=note)


@dataclass(frozen=True)
class Slice:
    """Mean NDCG@10 of both models over a group of users."""

    name: str
    users: int
    challenger: float
    champion: float


def slices(groups: Sequence[Slice], share: float, users: int) -> Check:
    """No group of users that collapses; the check's numbers are those of the weakest.

    Args:
        share: of the champion's NDCG@10, that must be kept in each group.
        users: groups of fewer are not looked at.
    """
    looked_at = [group for group in groups if group.users >= users and group.champion > 0]
    if not looked_at:
        note = f"no group of {users:,} users or more in which the champion finds anything"
        return Check(name="weakest slice", verdict=UNKNOWN, note=note)
    weakest = min(looked_at, key=lambda group: group.challenger / group.champion)
    bar = share * weakest.champion
    holds = weakest.challenger >= bar
    note = (
        f"the weakest slice ({weakest.name}, {weakest.users:,} users) has NDCG@10 {weakest.challenger:.4f}, "
        f"{'not below' if holds else 'below'} {bar:.4f} (champion {weakest.champion:.4f})"
    )
    return Check(
        name=f"slice {weakest.name}",
        challenger=weakest.challenger,
        champion=weakest.champion,
        bar=bar,
        verdict=_verdict(holds),
        note=note,
    )


def steering(new: FloatArray | None, old: FloatArray | None, margin: float, required: bool) -> Check:
    """Lift by the preference against the champion's, by a paired bootstrap over the same samples of the benchmark.

    Args:
        new, old: metric with the preference less that without, per sample, [S] each; None where not measured.
        margin: what may be lost of the mean.
        required: not measured is a reason not to promote.
    """
    if new is None or old is None:
        note = "the steerability of both was not measured for this day (run the DAG preference_benchmark for them)"
        return Check(name=STEERING, verdict=UNKNOWN, note=note, required=required)
    holds, found = non_inferior(new, old, margin)
    own, before = float(np.mean(new)), float(np.mean(old))
    note = (
        f"lift by the preference {own:+.4f} against {before:+.4f}, {found.users:,} samples: the difference may be as "
        f"low as {found.difference.low:+.4f}, {'above' if holds else 'not above'} {-margin:+.4f}"
    )
    bar = before - margin
    return Check(
        name=STEERING,
        challenger=own,
        champion=before,
        bar=bar,
        verdict=_verdict(holds),
        note=note,
        required=required,
        by_interval=True,
    )


@dataclass(frozen=True)
class Words:
    """How far words move a model's lists, as shares of pairs of a user and a word.

    Args:
        success: a wish for the word at least doubles its share of the first ten.
        control: a wish for another word does.
    """

    success: float
    control: float

    @property
    def lift(self) -> float:
        """What is due to the word."""
        return self.success - self.control

    def __str__(self) -> str:
        return f"{self.success:.2f} (control {self.control:.2f})"


def words(new: Words | None, old: Words | None, margin: float, required: bool, champion: str) -> Check:
    """Whether words move the lists no less than the champion's; the check's numbers are lifts.

    Args:
        new, old: of challenger and champion; None where nobody measured it.
        margin: what may be lost of the champion's lift.
        required: whether the challenger waits where it is less, or not known.
        champion: how the champion is called in the note; empty where there is none, and nothing to lose.
    """
    mine, theirs = None if new is None else new.lift, None if old is None else old.lift
    if not champion:
        if new is None or mine is None:
            return Check(name=WORDS, verdict=UNKNOWN, note="nobody measured whether words move its lists")
        moved = mine > 0
        note = f"words {'move' if moved else 'do not move'} its lists: success {new}, and there was no champion"
        return Check(name=WORDS, challenger=mine, verdict=PASSED if moved else REPORTED, note=note, told=not moved)
    if theirs is not None and theirs <= margin and mine is None:
        note = f"words do not move the lists of {champion}: success {old}; the challenger's were not asked"
        return Check(name=WORDS, champion=theirs, verdict=REPORTED, note=note)
    if mine is None or theirs is None:
        who = "the challenger" if mine is None else champion
        note = f"nobody measured whether words move the lists of {who}: run evaluate and register again"
        return Check(name=WORDS, challenger=mine, champion=theirs, verdict=UNKNOWN, note=note, required=required)
    bar = theirs - margin
    holds = mine >= bar
    note = (
        f"words move its lists {'no less' if holds else 'less'} than those of {champion}: success {new} against {old}; "
        f"{mine:.2f} over the control is {'not below' if holds else 'below'} {bar:.2f}"
    )
    return Check(
        name=WORDS,
        challenger=mine,
        champion=theirs,
        bar=bar,
        verdict=_verdict(holds) if required else REPORTED,
        note=note,
        waits=True,
        told=not holds,
    )


def within(name: str, value: float, limit: float, unit: str) -> Check:
    """A number against a limit; a limit of 0 asks nothing."""
    if not limit:
        return Check(name=name, challenger=value, verdict=REPORTED, note=f"{name} {value:.1f} {unit}")
    holds = value <= limit
    note = f"{name} {value:.1f} {unit} is {'within' if holds else 'above'} the limit {limit:.1f} {unit}"
    return Check(name=name, challenger=value, bar=limit, verdict=_verdict(holds), note=note)


def day(partition: str, champion: str, named: str) -> Check:
    """The challenger must not be of an older day than the champion, who has seen what that day holds out."""
    if champion > partition:
        return refused("day", f"{named} is of the newer day {champion}")
    return Check(name="day", verdict=PASSED, note=f"{partition} is not older than {champion} of {named}")
