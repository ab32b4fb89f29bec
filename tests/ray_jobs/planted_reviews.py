"""Reviews for the planted warehouse: the tone of the words goes with the stars."""

import datetime as dt

import numpy as np
import pyarrow as pa
from planted_warehouse import IDENTITY, PARTITION, WORDS, cluster_of

from ray_jobs.data.tables import publish, read_table
from schemas.reviews import REVIEWS
from schemas.sequences import SEQUENCES

GLAD = ("I love this {}, it works great.", "Excellent {}, highly recommended.", "A wonderful {} and a fine gift.")
SORRY = ("This {} broke after a day, awful.", "Terrible {}, a waste of money.", "I hate this {} and sent it back.")
PLAIN = ("The {} came in a brown box.",)
SHARES = (0.1, 0.1, 0.1, 0.3, 0.4)
TITLES = {5: "Five Stars", 4: "Good", 3: "", 2: "Meh!", 1: "One Star"}


def tone_of(text):
    """1 for glad, -1 for sorry, 0 for plain words."""
    starts = {1: GLAD, -1: SORRY, 0: PLAIN}
    return next(tone for tone, texts in starts.items() if any(t.split("{}")[0] in text for t in texts))


def plant_reviews(warehouse, users=80, written=0.9, seed=0, wordless=False):
    """Stars for every position of the first `users` histories and, at a share `written` of them, a review.

    The others have no review. Every third review was delivered the day before, too, with other words; `wordless` ones
    have the stars as their headline and no words.
    """
    rng = np.random.default_rng(seed)
    day = dt.date.fromisoformat(PARTITION)
    sequences = sorted(read_table(warehouse.uri("sequences")).to_pylist(), key=lambda row: row["user_id"])
    reviews, older = [], []
    for row in sequences[:users]:
        row["ratings"] = [
            float(stars) for stars in rng.choice([1, 2, 3, 4, 5], row["length"], p=[0.1, 0.1, 0.1, 0.3, 0.4])
        ]
        for item, at, stars in zip(row["item_ids"], row["occurred_at"], row["ratings"], strict=True):
            if rng.random() > written:
                continue
            texts = PLAIN if stars == 3 else GLAD if stars > 3 else SORRY
            words = WORDS[cluster_of(item)]
            review = {
                "user_id": row["user_id"],
                "item_id": item,
                "reviewed_at": at,
                "rating": stars,
                "title": TITLES[int(stars)],
                "text": texts[rng.integers(len(texts))].format(words[rng.integers(len(words))]),
                "source_line": len(reviews) + 1,
            }
            if wordless:
                review |= {"title": "Five Stars", "text": " "}
            reviews.append(review)
            if len(reviews) % 3 == 0:
                older.append({**review, "text": " " if wordless else "words of another day"})
    before = day - dt.timedelta(days=1)
    for table, rows, when in ((SEQUENCES, sequences, day), (REVIEWS, older, before), (REVIEWS, reviews, day)):
        content = pa.Table.from_pylist([{**row, "partition_date": when} for row in rows], schema=table.arrow_schema())
        publish(content, table, warehouse.uri(table.name), {"partition_date": when}, IDENTITY)
    return reviews
