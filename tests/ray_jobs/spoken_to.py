"""A model that words move, without weights, and users for it in tables."""

import datetime as dt
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from infra.settings import Settings
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.tables import publish
from ray_jobs.recipes.sequential.popularity import Popularity
from ray_jobs.recipes.sequential.settings import PopularitySettings
from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.steering import terms
from ray_jobs.steering.layer import Fit, SteeringLayer
from schemas import items
from schemas.preferences import PREFERENCES
from schemas.sequences import SEQUENCES
from schemas.stage_request import StageRequest

WORDS, NOUNS, ITEMS = ("Quiet", "Compact", "Wooden", "Colorful"), ("Lamp", "Kettle"), 48
DAY = dt.date(2026, 1, 31)


class Deaf:
    """An encoder to which nothing means the same as anything else."""

    name, dim, max_length = "deaf", 2, 64

    def count_tokens(self, texts):
        return [2 + len(text.split()) for text in texts]

    def encode(self, texts):
        return np.zeros((len(texts), self.dim), np.float32)


def speechless(monkeypatch):
    """Load no text encoder where a phrase is matched."""
    monkeypatch.setattr(terms, "load_text_encoder", lambda name: Deaf())


def spoken_to(steers: bool = True) -> Bundle:
    """The lower its number, the more popular an item; every fourth one is quiet, wooden ones only in their text."""
    words = [WORDS[n % 4] for n in range(ITEMS)]
    titles = tuple(f"{'' if word == 'Wooden' else f'{word} '}{NOUNS[n // 4 % 2]} {n}" for n, word in enumerate(words))
    texts = tuple(f"{title}. {word} all over" for title, word in zip(titles, words, strict=True))
    model = Popularity(PopularitySettings(), Catalogue(tuple(f"i{n:02}" for n in range(ITEMS)), titles, texts))
    model.counts[:] = model.counts.new_tensor([1.2 ** (ITEMS - n) for n in range(ITEMS)])
    if steers:
        index = terms.build_terms(texts, Deaf(), similarity=0.5, most_items=0.5, most_terms=100)
        model.steering = SteeringLayer(index, Fit(weight=5.0, refusal=1.0))
    return Bundle(model.eval(), {})


def write_users(settings: Settings, dataset: str, users: int = 6) -> None:
    """Histories of three items for users `u0` and on, on `DAY` and on the day before; of odd ones a taste is known."""
    identity = StageRequest(stage="sequences", dataset=dataset, partition=str(DAY)).identity()
    for day in (DAY - dt.timedelta(days=1), DAY):
        rows = [_sequence(user, day) for user in range(users if day == DAY else 1)]
        table = pa.Table.from_pylist(rows, schema=SEQUENCES.arrow_schema())
        publish(table, SEQUENCES, settings.table_uri(dataset, "sequences"), {"partition_date": day}, identity)
    rows = [_preference(user, position) for user in range(users) for position in range(3)]
    table = pa.Table.from_pylist(rows, schema=PREFERENCES.arrow_schema())
    publish(table, PREFERENCES, settings.table_uri(dataset, "preferences"), {"partition_date": DAY}, identity)


def write_items(settings: Settings, dataset: str, categories: Mapping[str, Sequence[str]]) -> None:
    """The table `items`: ids and their categories."""
    identity = StageRequest(stage="ingest", dataset=dataset, partition=str(DAY)).identity()
    none = dict.fromkeys(("title", "brand", "price", "description"))
    rows = [
        none | {"item_id": item, "categories": list(path), "text": item, "partition_date": DAY}
        for item, path in categories.items()
    ]
    table = pa.Table.from_pylist(rows, schema=items.ITEMS.arrow_schema())
    publish(table, items.ITEMS, settings.table_uri(dataset, "items"), {"partition_date": DAY}, identity)


def _sequence(user, day):
    items = [f"i{(user + step * 5) % ITEMS:02}" for step in range(3)]
    return {
        "user_id": f"u{user}",
        "item_ids": items,
        "occurred_at": [dt.datetime(2025, 1, 1 + step, tzinfo=dt.UTC) for step in range(3)],
        "ratings": [5.0] * 3,
        "tied_with_previous": [False] * 3,
        "tie_rule": "none",
        "length": 3,
        "valid_position": 1,
        "test_position": 2,
        "time_valid_start": 3,
        "time_test_start": 3,
        "partition_date": day,
    }


def _preference(user, position):
    told = user % 2 == 1
    return {
        "user_id": f"u{user}",
        "position": position,
        "as_of": dt.datetime(2025, 1, 1 + position, tzinfo=dt.UTC),
        "preferences": [f"Prefers number {position}", "Avoids wood"] if told else [],
        "sentiments": ["like", "dislike"] if told else [],
        "evidence": [[position]] * 2 if told else [],
        "status": "ok" if told else "not_asked",
        "partition_date": DAY,
    }
