"""Promotion: checks with a number, a threshold and a verdict each, and the decision that follows from them.

Nothing is read or written here; measured numbers come in.
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
BASELINE, WORDS = "NDCG@10 beside the baseline", "follows words"
PLACES = 4
"""Decimal places of NDCG@10 on the pages."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition of a promotion.

    Args:
        name: what is compared.
        challenger, champion: their numbers; None if there is none.
        bar: threshold for `challenger` or the lower end of its interval; None if there is none.
        verdict: ``passed``, ``failed``, ``not measured`` or ``reported``.
        note: the numbers in a sentence without its full stop.
        required: a verdict ``not measured`` blocks, too.
        by_interval: the lower end of the paired difference's interval decides, as `note` says.
        waits: if it fails, the challenger waits for a person, who may want it for its other strengths.
        told: `note` is always part of the decision's reason.
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
        """Whether it prevents a promotion."""
        return self.verdict == FAILED or (self.required and self.verdict == UNKNOWN)


@dataclass(frozen=True)
class Decision:
    """Whether the challenger becomes champion, with every check."""

    checks: tuple[Check, ...]

    @property
    def promote(self) -> bool:
        """Whether no check blocks."""
        return not any(check.blocks for check in self.checks)

    @property
    def word(self) -> str:
        """``promoted``, ``kept``, or ``waiting`` if every blocking check is not measured yet or may wait."""
        if self.promote:
            return PROMOTED
        return KEPT if any(check.verdict == FAILED and not check.waits for check in self.checks) else WAITING

    @property
    def reason(self) -> str:
        """Notes of the blocking checks, or of the passed ones if none blocks, and those that are always told."""
        promoted = self.promote
        return "; ".join(
            check.note for check in self.checks if check.told or (check.verdict == PASSED if promoted else check.blocks)
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {"decision": self.word, "reason": self.reason, "checks": [asdict(check) for check in self.checks]}


def _check(
    name: str, challenger: float, champion: float | None, bar: float, holds: bool, note: str, **flags: bool
) -> Check:
    verdict = PASSED if holds else FAILED
    return Check(name=name, challenger=challenger, champion=champion, bar=bar, verdict=verdict, note=note, **flags)


def refused(name: str, note: str) -> Check:
    """A check that always fails."""
    return Check(name=name, verdict=FAILED, note=note)


def above_popularity(own: float, popularity: float) -> Check:
    """NDCG@10 of the challenger must be above that of recommending popular items."""
    holds = own > popularity
    note = f"NDCG@10 {own:.4f} is {'' if holds else 'not '}above popularity's {popularity:.4f}"
    return _check("NDCG@10 above popularity", own, None, popularity, holds, note)


def beside_baseline(new: FloatArray, old: FloatArray, margin: float, recipe: str, baseline: str) -> Check:
    """NDCG@10 of a recommender must not be below that of the best baseline trained beside it, over the same users.

    The means decide, rounded as on the pages; the interval of the paired difference is only shown. Over a few hundred
    users it is wider than a tenth of the mean: its lower end would refuse most recommenders that are as good, and its
    upper end pass most that are worse.

    Args:
        new, old: NDCG@10 per user, [U] each, in the same order.
        margin: tolerated loss as a share of the baseline's mean.
        recipe, baseline: names of the two.
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
    return _check(f"NDCG@10 beside {baseline}, the baseline", own, None, bar, holds, note)


def in_place_of(lost: Check, own: float, recipe: str, baseline: str) -> Check:
    """Why a baseline is registered: the check `lost` that the recommender failed.

    Args:
        own: the baseline's NDCG@10.
    """
    note = f"{baseline}, trained beside {recipe}, is registered instead: {lost.note}"
    name = f"registered instead of {recipe}"
    return Check(name=name, challenger=own, bar=lost.challenger, verdict=PASSED, note=note, told=True)


def quality(new: FloatArray, old: FloatArray, margin: float, named: str, name: str = QUALITY) -> Check:
    """NDCG@10 must not be worse than the champion's on the same day, by a paired bootstrap over the same users.

    Against a champion that finds nothing it always passes.

    Args:
        new, old: NDCG@10 per user, [U] each, in the same order.
        margin: tolerated loss as a share of the champion's mean.
        named: name of the champion in the note.
    """
    own, before = float(np.mean(new)), float(np.mean(old))
    holds, found = non_inferior(new, old, margin * before)
    holds = holds or before == 0
    gap, bar = found.difference, -margin * before
    note = (
        f"NDCG@10 {own:.4f} against {before:.4f} of {named}, {found.users:,} users: the difference "
        f"{gap.mean:+.4f} may be as low as {gap.low:+.4f}, {'above' if holds else 'not above'} {bar:+.4f}"
    )
    return _check(name, own, before, before + bar, holds, note, by_interval=True)


def known_users(new: FloatArray, old: FloatArray, known: npt.NDArray[np.bool_], margin: float, named: str) -> Check:
    """`quality` over the users that the champion's day had.

    New accounts, such as those of a campaign for some items, may raise the mean while the others are served worse.

    Args:
        known: whether the champion's day had the user, bool[U].
    """
    if not known.any():
        return Check(name=KNOWN_USERS, verdict=UNKNOWN, note="no evaluation of the champion's day has one of the users")
    return quality(new[known], old[known], margin, f"{named}, among users from its day", KNOWN_USERS)


def coverage(own: float | None, champion: float | None, share: float) -> Check:
    """Share of the catalogue in some list must not be far below the champion's.

    Args:
        share: tolerated loss as a share of the champion's coverage.
    """
    name = "coverage of ten"
    if own is None or champion is None:
        return Check(name=name, challenger=own, champion=champion, verdict=UNKNOWN, note="coverage was not measured")
    bar = (1 - share) * champion
    holds = own >= bar
    note = f"coverage {own:.4f} is {'not below' if holds else 'below'} {bar:.4f} (champion {champion:.4f})"
    return _check(name, own, champion, bar, holds, note)


@dataclass(frozen=True)
class Slice:
    """Mean NDCG@10 of both models over a group of users."""

    name: str
    users: int
    challenger: float
    champion: float


def slices(groups: Sequence[Slice], share: float, users: int) -> Check:
    """No group of users may lose too much; the check's numbers are those of the weakest group.

    Args:
        share: of the champion's NDCG@10 that must be kept in each group.
        users: smaller groups are ignored.
    """
    large = [group for group in groups if group.users >= users and group.champion > 0]
    if not large:
        note = f"no group of {users:,} users or more in which the champion finds anything"
        return Check(name="weakest slice", verdict=UNKNOWN, note=note)
    weakest = min(large, key=lambda group: group.challenger / group.champion)
    bar = share * weakest.champion
    holds = weakest.challenger >= bar
    note = (
        f"the weakest slice ({weakest.name}, {weakest.users:,} users) has NDCG@10 {weakest.challenger:.4f}, "
        f"{'not below' if holds else 'below'} {bar:.4f} (champion {weakest.champion:.4f})"
    )
    return _check(f"slice {weakest.name}", weakest.challenger, weakest.champion, bar, holds, note)


def steering(new: FloatArray | None, old: FloatArray | None, margin: float, required: bool) -> Check:
    """Lift by the preference must not be below the champion's, by a paired bootstrap over the same samples.

    Args:
        new, old: metric with the preference minus that without, per sample of the benchmark, [S] each; None if not
            measured.
        margin: tolerated loss of the mean.
        required: a challenger that was not measured is not promoted.
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
    return _check(STEERING, own, before, before - margin, holds, note, required=required, by_interval=True)


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
        """The part of the success that is due to the word."""
        return self.success - self.control

    def __str__(self) -> str:
        return f"{self.success:.2f} (control {self.control:.2f})"


def words(new: Words | None, old: Words | None, margin: float, required: bool, champion: str) -> Check:
    """Words must move the lists no less than the champion's; the check's numbers are lifts.

    Args:
        new, old: of challenger and champion; None if not measured.
        margin: tolerated loss of the champion's lift.
        required: the challenger waits if its lift is below or not measured.
        champion: its name in the note; empty if there is none.
    """
    mine, theirs = None if new is None else new.lift, None if old is None else old.lift
    if not champion:
        if mine is None:
            return Check(name=WORDS, verdict=UNKNOWN, note="nobody measured whether words move its lists")
        moved = mine > 0
        note = f"words {'move' if moved else 'do not move'} its lists: success {new}, and there was no champion"
        return Check(name=WORDS, challenger=mine, verdict=PASSED if moved else REPORTED, note=note, told=not moved)
    if theirs is not None and theirs <= margin and mine is None:
        note = f"words do not move the lists of {champion}: success {old}; the challenger's were not measured"
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
    verdict = (PASSED if holds else FAILED) if required else REPORTED
    return Check(
        name=WORDS,
        challenger=mine,
        champion=theirs,
        bar=bar,
        verdict=verdict,
        note=note,
        waits=True,
        told=not holds,
    )


def within(name: str, value: float, limit: float, unit: str) -> Check:
    """A number must not exceed a limit; 0 means no limit."""
    if not limit:
        return Check(name=name, challenger=value, verdict=REPORTED, note=f"{name} {value:.1f} {unit}")
    holds = value <= limit
    note = f"{name} {value:.1f} {unit} is {'within' if holds else 'above'} the limit {limit:.1f} {unit}"
    return _check(name, value, None, limit, holds, note)


def day(partition: str, champion: str, named: str) -> Check:
    """The challenger must not be of an older day: the champion was trained on what that day holds out."""
    if champion > partition:
        return refused("day", f"{named} is of the newer day {champion}")
    return Check(name="day", verdict=PASSED, note=f"{partition} is not older than {champion} of {named}")
