"""Baselines that ignore language: chance, and bags of words."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from pipelines.landing.planted_world.mentions import named_attributes, stems_of
from pipelines.landing.planted_world.truth import Opinion
from pipelines.landing.planted_world.vocabulary import ATTRIBUTES
from pipelines.language.validation import sentiment_of
from pipelines.recovery.histories import History
from pipelines.recovery.noise import Scored

Places = Sequence[tuple[str, int]]


def random_opinions(histories: Mapping[str, History], places: Places, seed: int) -> dict[tuple[str, int], set[Opinion]]:
    """A random attribute per review, liked or disliked by its stars."""
    rng = random.Random(f"recovery/{seed}")
    return {
        (user_id, position): {(sentiment, rng.choice(list(ATTRIBUTES)))}
        for user_id, position in places
        if (sentiment := sentiment_of(histories[user_id].truth[position].stars))
    }


def word_opinions(histories: Mapping[str, History], places: Places, most: int) -> dict[tuple[str, int], set[Opinion]]:
    """The `most` words of a review with the greatest TF-IDF weight as its preference, liked or disliked by its stars.

    `most` should be about the length of a line, so that the bag of words is no longer than the model's answer.
    """
    texts = [histories[user_id].reviews[position] for user_id, position in places]
    vectorizer = TfidfVectorizer(analyzer=lambda text: sorted(stems_of(text)))
    weights = vectorizer.fit_transform(texts)
    vocabulary = vectorizer.get_feature_names_out()
    found: dict[tuple[str, int], set[Opinion]] = {}
    for row, (user_id, position) in enumerate(places):
        sentiment = sentiment_of(histories[user_id].truth[position].stars)
        if sentiment:
            dense = weights[row].toarray()[0]
            kept = [vocabulary[i] for i in np.argsort(-dense, kind="stable")[:most] if dense[i] > 0]
            found[user_id, position] = {(sentiment, name) for name in named_attributes(kept)}
    return found


def cosine_scores(
    positions: Sequence[Scored], histories: Mapping[str, History], texts: Mapping[str, str]
) -> list[float]:
    """TF-IDF cosine between each position's text and the sum of the others that the denoiser may show beside it.

    Args:
        texts: titles or full texts, by item id.
    """
    ids = sorted(texts)
    row = {item_id: index for index, item_id in enumerate(ids)}
    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform([texts[item_id] for item_id in ids]).toarray()
    scores = []
    for p in positions:
        history = histories[p.user_id]
        others = [row[true.item_id] for place, true in enumerate(history.truth[: history.end]) if place != p.position]
        rest = vectors[others].sum(axis=0)
        length = float(np.linalg.norm(rest))
        scores.append(float(vectors[row[p.true.item_id]] @ rest) / length if length else 0.0)
    return scores
