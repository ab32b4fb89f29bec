"""A planted world delivered day by day: ``python -m tests.simulated.days --out DIR --days 14``.

It writes landing files ``DIR/<day>/{reviews,meta}.jsonl.gz``, the truth in ``DIR/truth``, ``DIR/probe.jsonl`` with
histories of users who are in no delivery, and ``DIR/plan.json`` with the kind of each day. Besides ordinary days there
are the unusual ones of a real feed: late or corrected reviews, a day without reviews, a day with accounts that push
items, its second delivery without them, a merged catalogue, a day ten times as large, users to be erased, and a file
that is delivered twice.
"""

import argparse
import dataclasses
import datetime as dt
import json
import random
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from infra.bounds import Bounded, Count, Seed
from infra.errors import UserError
from pipelines.landing.planted_world.files import item_lines, review_line, write_lines, write_truth
from pipelines.landing.planted_world.world import Position, World, WorldSettings, grow_world
from schemas.errors import DataError

LONG: Sequence[str] = (
    "first load", "ordinary", "late", "empty", "corrected", "bad", "repaired", "merged", "ordinary", "spike", "erasure",
    "repeated", "ordinary", "ordinary",
)  # fmt: skip
SHORT: Sequence[str] = ("first load", "late", "repeated", "bad")
COPIED, PRAISED = 2, 3
"""Items of an account of the bad day: copied from a customer, then pushed ones."""
REVIEWS_FILE, META_FILE = "reviews.jsonl.gz", "meta.jsonl.gz"


@dataclass(frozen=True, kw_only=True)
class FeedSettings(Bounded):
    """How a world is cut into days.

    Args:
        days: number of days; up to four follow the plan `SHORT`.
        start: the first day, ISO format.
        ordinary: reviews of an ordinary day.
        merged_share: share of items that are merged in later, with all their reviews until then.
        accounts: accounts that push items on the bad day.
        pushed: items that they push; five or more, so that each account has some that it did not copy.
        probes: users of the probe.
    """

    days: Count = 14
    start: str = "2026-03-01"
    ordinary: Annotated[int, Field(ge=10)] = 50
    merged_share: float = 0.35
    accounts: int = 1200
    pushed: Annotated[int, Field(ge=COPIED + PRAISED)] = 10
    probes: int = 100
    seed: Seed = 11

    def kinds(self) -> list[str]:
        """The kind of each day; ordinary after the end of the plan."""
        plan = SHORT if self.days <= len(SHORT) else LONG
        return [plan[i] if i < len(plan) else "ordinary" for i in range(self.days)]


@dataclass(frozen=True, kw_only=True)
class Day:
    """One run of the daily chain.

    Args:
        partition: the day, ISO format.
        erase: users to erase before the run.
        replaces: the files of the day are delivered again.
    """

    partition: str
    kind: str
    erase: tuple[str, ...] = ()
    replaces: bool = False


def write_days(world: World, chosen: FeedSettings, folder: Path) -> list[Day]:
    """Write the landing files of every day, and those of a bad day's second delivery into ``<day>/again``.

    Returns:
        The runs in order.
    """
    rng = random.Random(f"planted-days/{chosen.seed}")
    kinds = chosen.kinds()
    users = [user.user_id for user in world.users]
    probes = frozenset(rng.sample(users, chosen.probes))
    late_items = _late_items(world, chosen, kinds, rng)
    deliveries = _deliveries(world, chosen, kinds, probes, late_items, rng)
    start = dt.date.fromisoformat(chosen.start)
    runs: list[Day] = []
    for number, kind in enumerate(kinds):
        day = (start + dt.timedelta(days=number)).isoformat()
        lines, erase = deliveries[number], ()
        if kind == "erasure":
            named = sorted({line["user_id"] for before in deliveries[:number] for line in before})
            erase = tuple(rng.sample(named, 3))
        if kind == "bad":
            write_lines(folder / day / "again" / REVIEWS_FILE, lines)
            write_lines(folder / day / "again" / META_FILE, [])
            before = [line for delivery in deliveries[:number] for line in delivery]
            lines = lines + _accounts(chosen, before, lines, rng)
        new = [item for item in world.items if (item.item_id in late_items) == (kind == "merged")]
        write_lines(folder / day / REVIEWS_FILE, lines)
        write_lines(folder / day / META_FILE, item_lines(rng, new) if kind in ("first load", "merged") else [])
        if kind == "repaired":
            runs.append(Day(partition=runs[-1].partition, kind="repaired", replaces=True))
        runs.append(Day(partition=day, kind="ordinary" if kind == "repaired" else kind, erase=erase))
    write_truth(world, folder / "truth")
    write_lines(folder / "probe.jsonl", _probe_lines(world, probes, late_items))
    (folder / "plan.json").write_text(json.dumps([asdict(run) for run in runs], indent=1))
    return runs


def _late_items(world: World, chosen: FeedSettings, kinds: Sequence[str], rng: random.Random) -> frozenset[str]:
    if "merged" not in kinds:
        return frozenset()
    ids = [item.item_id for item in world.items]
    return frozenset(rng.sample(ids, round(chosen.merged_share * len(ids))))


def _deliveries(
    world: World,
    chosen: FeedSettings,
    kinds: Sequence[str],
    probes: frozenset[str],
    late_items: frozenset[str],
    rng: random.Random,
) -> list[list[dict[str, Any]]]:
    """Review lines of each day, by time; the first load has those that the other days leave."""
    known = [p for p in sorted(world.positions, key=lambda p: p.at) if p.user_id not in probes]
    sizes = [{"spike": 10, "empty": 0, "repeated": 0}.get(kind, 1) * chosen.ordinary for kind in kinds]
    first = len(known) - sum(sizes[1:])
    if first < sum(sizes[1:]):
        raise DataError(
            f"{len(known)} reviews are too few for {chosen.days} days of {chosen.ordinary}: more users, or a smaller "
            "ordinary"
        )
    sizes[0] = first
    merging = kinds.index("merged") if "merged" in kinds else 0
    days: list[list[Position]] = []
    withheld: list[Position] = []
    for number, size in enumerate(sizes):
        of_day, known = known[:size], known[size:]
        if number < merging:
            withheld += [p for p in of_day if p.item.item_id in late_items]
            of_day = [p for p in of_day if p.item.item_id not in late_items]
        elif number == merging:
            of_day = withheld + of_day
        days.append(of_day)
    for number, kind in enumerate(kinds):
        if kind == "late":  # a part of the day before, or of the first load, arrives with this day
            split = len(days[number - 1]) - chosen.ordinary // 3
            days[number] = days[number - 1][split:] + days[number]
            days[number - 1] = days[number - 1][:split]
    lines = [[review_line(rng, position, world.settings.markup) for position in day] for day in days]
    for number, kind in enumerate(kinds):
        if kind == "corrected":
            earlier = lines[number - 1] or lines[0]
            lines[number] = lines[number] + [_corrected(line) for line in rng.sample(earlier, min(10, len(earlier)))]
        if kind == "repeated":
            lines[number] = list(lines[number - 1])
    return lines


def _corrected(line: Mapping[str, Any]) -> dict[str, Any]:
    rating = line["rating"]
    return {**line, "rating": rating - 1 if rating > 1 else rating + 1}


def _accounts(
    chosen: FeedSettings,
    before: Sequence[Mapping[str, Any]],
    lines: Sequence[Mapping[str, Any]],
    rng: random.Random,
) -> list[dict[str, Any]]:
    """Lines of accounts that push a few items: each copies purchases of a customer, then rates pushed items highly.

    A model that learns from them recommends the pushed items to customers with similar histories.

    Args:
        before: lines of the days before.
        lines: lines of the day by its real customers.
    """
    histories: dict[str, list[str]] = defaultdict(list)
    for line in sorted([*before, *lines], key=lambda line: line["timestamp"]):
        histories[line["user_id"]].append(line["parent_asin"])
    copied = [items for _, items in sorted(histories.items()) if len(items) >= COPIED]
    delivered = {item for items in histories.values() for item in items}
    pushed = rng.sample(sorted(delivered), chosen.pushed)
    last = max(line["timestamp"] for line in lines)
    made = []
    for number in range(chosen.accounts):
        user_id = f"B{number:05d}" + "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=8))
        items = rng.choice(copied)
        start = rng.randrange(len(items) - COPIED + 1)
        own = items[start : start + COPIED]
        praised = rng.sample([item for item in pushed if item not in own], PRAISED)
        for step, item_id in enumerate(own + praised):
            made.append(
                {
                    **lines[0],
                    "user_id": user_id,
                    "asin": item_id,
                    "parent_asin": item_id,
                    "rating": 5.0,
                    "title": "",
                    "text": "",
                    "timestamp": last + 1000 * step + number,
                }
            )
    return made


def _probe_lines(world: World, probes: frozenset[str], late_items: frozenset[str]) -> list[dict[str, Any]]:
    """History and next item of each user of the probe, among the items of the first load."""
    histories: dict[str, list[str]] = defaultdict(list)
    for position in world.positions:
        if position.user_id in probes and position.item.item_id not in late_items:
            histories[position.user_id].append(position.item.item_id)
    return [
        {"user_id": user_id, "history": items[:-1], "next": items[-1]}
        for user_id, items in sorted(histories.items())
        if len(items) > 2
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, grow the world and deliver it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the deliveries")
    parser.add_argument("--users", type=int, default=WorldSettings.users)
    parser.add_argument("--items", type=int, default=WorldSettings.items)
    for field in dataclasses.fields(FeedSettings):
        default: Any = field.default
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(default), default=default)
    given = vars(parser.parse_args(argv))
    folder, users, items = given.pop("out"), given.pop("users"), given.pop("items")
    try:
        chosen = FeedSettings(**given)
        world = grow_world(WorldSettings(users=users, items=items, seed=chosen.seed, duplicates=0.0))
        runs = write_days(world, chosen, folder)
    except UserError as error:
        parser.error(str(error))
    sys.stdout.write("".join(f"{run.partition}  {run.kind}\n" for run in runs))


if __name__ == "__main__":
    main()
