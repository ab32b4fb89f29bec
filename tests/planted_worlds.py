"""Small worlds with a known mechanism, for statistical checks of recipes: histories over clustered items."""

from dataclasses import replace

import numpy as np

from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.histories import Histories

ITEMS, CLUSTERS = 90, 9
PER_CLUSTER = ITEMS // CLUSTERS
HOUR, DAY = 3_600, 86_400


def catalogue(items=ITEMS):
    names = tuple(f"I{item:03d}" for item in range(items))
    return Catalogue(names, names, names)


def histories(rows, times=None):
    """Leave-one-out histories of `rows` of item indices."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    return Histories(
        user_ids=tuple(f"U{user:05d}" for user in range(len(rows))),
        items=tuple(np.array(row, dtype=np.int64) for row in rows),
        valid_position=lengths - 2,
        test_position=lengths - 1,
        preferences=({},) * len(rows),
        times=None if times is None else tuple(np.array(row, dtype=np.int64) for row in times),
    )


def threads(seed, users=700, items=60, noise=0.15):
    """Two threads run through a history: an item is the successor of the one two steps back, but for the noise."""
    rng = np.random.default_rng(seed)
    successor = rng.permutation(items)
    rows = []
    for _ in range(users):
        row = list(rng.integers(items, size=2))
        for _ in range(int(rng.integers(6, 12))):
            row.append(int(rng.integers(items)) if rng.random() < noise else int(successor[row[-2]]))
        rows.append(row)
    return histories(rows)


def loops(seed, users=700, items=60, few=5):
    """Each user goes round a few items in an order of their own, and sometimes starts anew at any of them."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(users):
        mine = rng.choice(items, few, replace=False)
        place = int(rng.integers(few))
        row = [int(mine[place])]
        for _ in range(11):
            place = int(rng.integers(few)) if rng.random() < 0.3 else (place + 1) % few
            row.append(int(mine[place]))
        rows.append(row)
    return histories(rows)


def order_free(seed, users=700, reach=6):
    """The next cluster is a permutation of the most frequent among the last `reach` items, wherever they stood."""
    rng = np.random.default_rng(seed)
    following = rng.permutation(CLUSTERS)
    rows = []
    for _ in range(users):
        clusters = list(rng.integers(CLUSTERS, size=4))
        for _ in range(int(rng.integers(8, 14))):
            counts = np.bincount(clusters[-reach:], minlength=CLUSTERS)
            likely = int(following[counts.argmax()])
            clusters.append(likely if rng.random() < 0.7 else int(rng.integers(CLUSTERS)))
        rows.append([_member(cluster, rng) for cluster in clusters])
    return histories(rows)


def by_time(seed, users=1_200):
    """A short gap leads from a cluster to one other, a long gap to yet another; nothing else tells which."""
    rng = np.random.default_rng(seed)
    soon, late = rng.permutation(CLUSTERS), rng.permutation(CLUSTERS)
    rows, times = [], []
    for _ in range(users):
        clusters, moments = [int(rng.integers(CLUSTERS))], [10**9 + int(rng.integers(10**6))]
        for _ in range(int(rng.integers(6, 12))):
            long = rng.random() < 0.5
            moments.append(moments[-1] + int((20 * DAY if long else HOUR) * rng.uniform(0.7, 1.4)))
            likely = (late if long else soon)[clusters[-1]]
            clusters.append(int(likely) if rng.random() < 0.9 else int(rng.integers(CLUSTERS)))
        rows.append([_member(cluster, rng) for cluster in clusters])
        times.append(moments)
    return histories(rows, times)


def successors(seed, users=500, noise=0.15):
    """Every item has one successor, but for the noise; items with a code in common have nothing else in common."""
    rng = np.random.default_rng(seed)
    successor = rng.permutation(ITEMS)
    rows = []
    for _ in range(users):
        row = [int(rng.integers(ITEMS))]
        for _ in range(int(rng.integers(6, 10))):
            row.append(int(rng.integers(ITEMS)) if rng.random() < noise else int(successor[row[-1]]))
        rows.append(row)
    return histories(rows)


def coded_catalogue():
    """The items with two codes each: cluster and place in it."""
    items = catalogue()
    codes = {item: divmod(number, PER_CLUSTER) for number, item in enumerate(items.item_ids)}
    return items.with_codes(codes, (CLUSTERS, PER_CLUSTER))


def intents(seed, users=400, others=3_000, items=300, many=15, noise=0.15):
    """A user has two or three intents in turn, each a set of items in no order; and other users with the same intents.

    Twenty equal items share an intent, and few users tell which ones.
    """
    rng = np.random.default_rng(seed)
    member = rng.permutation(items).reshape(many, -1)

    def history():
        own = rng.choice(many, size=int(rng.integers(2, 4)), replace=False)
        now, row = own[0], []
        for _ in range(int(rng.integers(6, 12))):
            if rng.random() < 0.4:
                now = rng.choice(own)
            row.append(int(rng.integers(items)) if rng.random() < noise else int(rng.choice(member[now])))
        return row

    return histories([history() for _ in range(users)]), histories([history() for _ in range(others)])


def on_a_ring(seed, users=300, others=2_000, items=300, noise=0.1):
    """About six events a user, in no order, near the user's own place on a ring of items; and other such users."""
    rng = np.random.default_rng(seed)
    ring = rng.permutation(items)

    def history():
        place = rng.random() * items
        length = int(rng.integers(5, 8))
        near = [int(ring[int(rng.normal(place, 4)) % items]) for _ in range(length)]
        return [int(rng.integers(items)) if rng.random() < noise else item for item in near]

    return histories([history() for _ in range(users)]), histories([history() for _ in range(others)])


def said_of_places(seed, users=300, others=2_000, items=300, noise=0.1, error=0.01):
    """As `on_a_ring`, with texts: of a user the own place on the ring, not quite exactly, from the second item on; of
    an item its place. Nothing else tells who is like whom before they share items.

    Returns:
        The histories to learn from, those of others, and the catalogue.
    """
    rng = np.random.default_rng(seed)
    ring = rng.permutation(items)
    found = []
    for count in (users, others):
        rows, said = [], []
        for _ in range(count):
            place, length = rng.random(), int(rng.integers(5, 8))
            near = [int(ring[int(rng.normal(place * items, 4)) % items]) for _ in range(length)]
            rows.append([int(rng.integers(items)) if rng.random() < noise else item for item in near])
            said.append({at: (f"{rng.normal(place, error) % 1:.4f}",) for at in range(1, length)})
        found.append(replace(histories(rows), summaries=tuple(said)))
    texts = tuple(f"{place / items:.4f}" for place in np.argsort(ring))
    names = tuple(f"I{item:03d}" for item in range(items))
    return *found, Catalogue(names, texts, texts)


class Places:
    """A text encoder that reads places on a ring: a vector is the mean direction of those in a text."""

    dim = 2

    def to(self, device):
        return self

    def encode(self, texts):
        angles = [2 * np.pi * np.array([float(word) for word in text.rstrip(".").split(". ")]) for text in texts]
        return np.array([[np.cos(a).mean(), np.sin(a).mean()] for a in angles], np.float32)


def drift(seed, users=700, items=120, window=3):
    """Interest moves along a circle of items, either way, at one speed; a user is seen three to five times.

    Each time, `window` items near the interest come within minutes; the times are a day to forty apart, in which the
    interest goes up to two fifths around. The test target stands alone, one such time after the others.
    """
    rng = np.random.default_rng(seed)
    rows, times = [], []
    for _ in range(users):
        place, speed = rng.random(), rng.choice([-0.01, 0.01])
        now, row, moments = 10**9 + int(rng.integers(10**8)), [], []
        visits = int(rng.integers(3, 6))
        for visit in range(visits + 1):
            for _ in range(window if visit < visits else 1):
                row.append(round(place * items + 2 * rng.normal()) % items)
                moments.append(now)
                now += 60
            days = np.exp(rng.uniform(0, np.log(40)))
            now, place = now + int(days * DAY), (place + speed * days) % 1
        rows.append(row)
        times.append(moments)
    return histories(rows, times)


def communities(seed, users=500):
    """Users stay in a community of items, whose members follow each other in a ring; ids say nothing of it."""
    rng = np.random.default_rng(seed)
    member = rng.permutation(ITEMS).reshape(CLUSTERS, PER_CLUSTER)
    rows = []
    for _ in range(users):
        home, place = int(rng.integers(CLUSTERS)), int(rng.integers(PER_CLUSTER))
        row = []
        for _ in range(int(rng.integers(6, 11))):
            row.append(int(member[home, place]))
            place = (place + int(rng.integers(1, 3))) % PER_CLUSTER
        rows.append(row)
    return histories(rows), member


def two_catalogues(seed, turned=False, users=700, items=300, values=5, width=32, noise=0.15):
    """Two catalogues, and what follows what is said in one space of text vectors for both.

    An item has four aspects, each a word of `values` that is written in a quarter of its vector. Of the next item one
    aspect stays, one follows from itself, and two follow from each other; it is one of the three unseen items with most
    of the wanted words. No item of one catalogue has the words of any of the other.

    Args:
        turned: rotate the vectors, so that every quarter has something of every aspect.

    Returns:
        For each catalogue: itself, vectors float32[items, width] and histories.
    """
    rng = np.random.default_rng(seed)
    words = rng.normal(size=(4, values, width // 4))
    turn = np.linalg.qr(rng.normal(size=(width, width)))[0] if turned else np.eye(width)
    rules = np.stack([rng.permutation(values), np.arange(values), rng.permutation(values), rng.permutation(values)])
    every = np.stack(np.unravel_index(rng.permutation(values**4)[: 2 * items], (values,) * 4), axis=1)
    made = []
    for number, own in enumerate(np.split(every, 2)):
        vectors = np.concatenate([words[aspect][own[:, aspect]] for aspect in range(4)], axis=1) @ turn
        vectors = (vectors + 0.2 * rng.normal(size=vectors.shape)).astype(np.float32)
        wanted = np.stack([rules[aspect][own[:, source]] for aspect, source in enumerate((3, 1, 2, 0))], axis=1)
        fitting = (wanted[:, None] == own[None]).sum(2) + 0.5 * rng.random((items, items))
        best = np.argsort(-fitting, axis=1)[:, :8]
        rows = []
        for _ in range(users):
            row = [int(rng.integers(items))]
            for _ in range(int(rng.integers(6, 10))):
                fresh = [item for item in best[row[-1]] if item not in row][:3]
                row.append(int(rng.integers(items)) if rng.random() < noise else int(rng.choice(fresh)))
            rows.append(row)
        ids, texts = catalogue(items).item_ids, tuple(f"{number} {item}" for item in range(items))
        made.append((Catalogue(ids, texts, texts), vectors, histories(rows)))
    return made


def tastes_and_topics(seed, users=500, topics=8, tastes=6, each=5, cold=0.2, noise=0.1):
    """A user has one taste; the topic of the next item follows from that of the last. Items have one of each.

    A fifth of the items is new: they are held-out targets of three users in ten, and occur nowhere else.

    Returns:
        The histories, each item's topic, and bool[items], which are new.
    """
    rng = np.random.default_rng(seed)
    topic, taste = np.divmod(np.repeat(np.arange(topics * tastes), each), tastes)
    new = rng.random(len(topic)) < cold
    ring = rng.permutation(topics)
    following = ring[(np.argsort(ring) + 1) % topics]  # one circle: a short one would bring items again, which are out
    rows = []
    for _ in range(users):
        own, place, row = int(rng.integers(tastes)), int(rng.integers(topics)), []
        length = int(rng.integers(7, 11))
        for step in range(length):
            place = int(rng.integers(topics)) if rng.random() < noise else int(following[place])
            fits = (topic == place) & (taste == own)
            wanted = new if step >= length - 2 and rng.random() < 0.3 else ~new
            there = np.flatnonzero(fits & wanted)
            row.append(int(rng.choice(there if len(there) else np.flatnonzero((topic == place) & wanted))))
        rows.append(row)
    return histories(rows), topic, new


def shuffled_training(worlds, seed):
    """The same users and targets, each history's training positions in random order: the control without order."""
    rng = np.random.default_rng(seed)
    rows = [np.concatenate([rng.permutation(items[:-2]), items[-2:]]) for items in worlds.items]
    return histories(rows)


def _member(cluster, rng):
    """An item of a cluster, the first ones more often."""
    weights = 1 / np.arange(1, PER_CLUSTER + 1)
    return cluster * PER_CLUSTER + int(rng.choice(PER_CLUSTER, p=weights / weights.sum()))
