"""The planted world: items, users with tastes that may drift, and their purchases and reviews."""

import datetime as dt
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from infra.bounds import Bounded, Count, Positive, Seed, Share
from infra.errors import SettingError
from pipelines.landing.planted_world.catalogue import Item, make_items
from pipelines.landing.planted_world.tastes import Taste, choose, draw_taste, stray
from pipelines.landing.planted_world.wording import Review, write_review


@dataclass(frozen=True, kw_only=True)
class WorldSettings(Bounded):
    """Size and difficulty of a world.

    Args:
        noise: share of all positions with a random item outside the user's taste; exact up to rounding.
        drift: share of users whose taste switches near the middle of their history.
        shortest, longest: history lengths; the mean is a little below their middle.
        temperature: lower makes users follow their taste more strictly.
        zipf: exponent of item popularity.
        ties: share of positions with the same time as the one before.
        duplicates: share of review lines that are in the files twice, half of them shortened.
        markup: share of texts with HTML entities and tags in the files.
    """

    users: Count = 400
    items: int = 160
    seed: Seed = 7
    noise: Share = 0.1
    drift: Share = 0.4
    shortest: int = 5
    longest: int = 16
    temperature: Positive = 0.45
    zipf: float = 0.7
    ties: Share = 0.03
    duplicates: Share = 0.01
    markup: Share = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.shortest <= self.longest:
            raise SettingError(f"shortest {self.shortest} and longest {self.longest}: need 2 <= shortest <= longest")
        if self.items < 2 * self.longest:
            raise SettingError(f"items is {self.items}; take at least {2 * self.longest}, twice the longest history")


@dataclass(frozen=True, kw_only=True)
class User:
    """A user with one taste, or two and the position at which the second takes over."""

    user_id: str
    tastes: tuple[Taste, ...]
    switch: int | None

    def taste_at(self, position: int) -> Taste:
        """The taste at a position, from 0."""
        return self.tastes[0] if self.switch is None or position < self.switch else self.tastes[1]


@dataclass(frozen=True, kw_only=True)
class Position:
    """One purchase with its review; for noise, `meant` is the item that the taste would have chosen."""

    user_id: str
    position: int
    item: Item
    at: dt.datetime
    is_noise: bool
    review: Review
    meant: Item | None = None


@dataclass(frozen=True, kw_only=True)
class World:
    """A planted world; positions are grouped by user, in order."""

    settings: WorldSettings
    items: tuple[Item, ...]
    users: tuple[User, ...]
    positions: tuple[Position, ...]


def grow_world(settings: WorldSettings) -> World:
    """Generate the world of `settings`, which determine it."""
    rng = random.Random(f"planted-world/{settings.seed}")
    items = make_items(rng, settings.items, settings.zipf)
    # Triangular towards the shorter end: 5 to 16 has a mean near 9.
    spread = settings.longest - settings.shortest
    lengths = [settings.shortest + round(spread * rng.triangular(0, 1, 0.1)) for _ in range(settings.users)]
    noisy = _noise_positions(rng, lengths, settings.noise)
    users: list[User] = []
    positions: list[Position] = []
    for index, length in enumerate(lengths):
        user = _draw_user(rng, index, length, settings.drift)
        users.append(user)
        times = _times(rng, length, settings.ties)
        history: list[Item] = []
        for position in range(length):
            taste = user.taste_at(position)
            is_noise = (index, position) in noisy
            if is_noise:
                pick = stray(rng, items, taste, history)
            else:
                pick = choose(rng, items, taste, history, settings.temperature)
            history.append(pick)
            positions.append(
                Position(
                    user_id=user.user_id,
                    position=position,
                    item=pick,
                    at=times[position],
                    is_noise=is_noise,
                    review=write_review(rng, pick, taste, is_noise),
                )
            )
    meant = _with_meant(settings, items, users, positions)
    return World(settings=settings, items=tuple(items), users=tuple(users), positions=meant)


def _with_meant(
    settings: WorldSettings, items: Sequence[Item], users: Sequence[User], positions: Sequence[Position]
) -> tuple[Position, ...]:
    """Give every noise position the item that the taste would have chosen, among those that the user never has.

    It is drawn from a separate generator, so that it does not change the world.
    """
    rng = random.Random(f"planted-meant/{settings.seed}")
    histories: dict[str, list[Item]] = {user.user_id: [] for user in users}
    for position in positions:
        histories[position.user_id].append(position.item)
    owned = {user_id: {item.item_id for item in history} for user_id, history in histories.items()}
    tastes = {user.user_id: user.taste_at for user in users}
    found = []
    for position in positions:
        if position.is_noise:
            mine = owned[position.user_id]
            free = [item for item in items if item.item_id not in mine]
            before = histories[position.user_id][: position.position]
            taste = tastes[position.user_id](position.position)
            meant = choose(rng, free, taste, before, settings.temperature)
            mine.add(meant.item_id)
            position = replace(position, meant=meant)
        found.append(position)
    return tuple(found)


def _noise_positions(rng: random.Random, lengths: Sequence[int], share: float) -> set[tuple[int, int]]:
    everywhere = [(user, position) for user, length in enumerate(lengths) for position in range(length)]
    return set(rng.sample(everywhere, round(share * len(everywhere))))


def _draw_user(rng: random.Random, index: int, length: int, drift: float) -> User:
    user_id = f"A{index:05d}" + "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=8))
    first = draw_taste(rng)
    if rng.random() >= drift:
        return User(user_id=user_id, tastes=(first,), switch=None)
    switch = max(1, round(length * rng.uniform(0.4, 0.6)))
    return User(user_id=user_id, tastes=(first, draw_taste(rng, first)), switch=switch)


def _times(rng: random.Random, length: int, ties: float) -> list[dt.datetime]:
    """Times in 2021 to 2024, in milliseconds, some equal to the one before."""
    now = dt.datetime(2021, 1, 4, tzinfo=dt.UTC) + dt.timedelta(seconds=rng.randrange(500 * 86_400))
    times = []
    for position in range(length):
        if position and rng.random() >= ties:
            now += dt.timedelta(milliseconds=3_600_000 + int(rng.expovariate(1 / 30) * 86_400_000))
        times.append(now)
    return times
