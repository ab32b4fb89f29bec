"""How well lists follow words, recipe by recipe, on planted worlds whose truth is known; nothing but this process.

    python -m tests.bench.bench_words --seeds 7,8,9

Each world (400 users, 160 items) is trained on once per arm, and asked three ways: by the recipe alone, by a floor
(rank of the recipe as -log(rank) and the cosine of the sentence encoder between each bare attribute and the item's
text, each standardised per user, added; a refusal subtracted), and by the recipe with its steering layer. Items of the
history are left out, the last item is hidden.

    none, true, other   NDCG@10 with no words, the user's true tastes as a sentence, somebody else's
    success, control    of 60 users and the 20 commonest attributes: a wish, or a wish for another attribute, at least
                        doubles the attribute's share of the first ten
    halved              a refusal at most halves it, where there was some
    own                 NDCG@10 with what a reader knows of each user, under its own weight: a perfect reader, one who
                        mixes up the users, and nobody
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from infra.settings import RaySettings
from pipelines.items import item_text
from pipelines.landing.planted_world.tastes import Taste
from pipelines.landing.planted_world.truth import DISLIKE, LIKE
from pipelines.landing.planted_world.vocabulary import ATTRIBUTES
from pipelines.landing.planted_world.world import WorldSettings, grow_world
from pipelines.steering.probes import attribute_line
from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import evaluation_examples, latest_preferences
from ray_jobs.data.histories import Histories
from ray_jobs.encoders.text import load_text_encoder
from ray_jobs.evaluation.metrics import ndcg
from ray_jobs.recipes import recipe_class, settings_class
from ray_jobs.recommenders.base import Recommender
from ray_jobs.steering.fitting import fitted_layer
from ray_jobs.steering.settings import SteeringSettings
from ray_jobs.tokenizers.base import FitContext
from ray_jobs.tokenizers.vectors import ArrayVectors
from ray_jobs.training.loop import fit
from schemas.recipes import Need

FLOOR_WEIGHTS = (0.5, 1.0, 1.5)
PROBED_USERS, PROBED_ATTRIBUTES = 60, 20
PARTS = {"reading": "parts", "batch_size": 128, "learning_rate": 2e-3, "epochs": 20, "patience": 6}
ARMS: dict[str, tuple[str, dict]] = {
    "mendertok": ("mendertok", PARTS),
    "mendertok without dense head": ("mendertok", {"reading": "parts", "dense": False}),
    "sasrec": ("sasrec", {}),
    "tiger": ("tiger", {"epochs": 20}),
    "popularity": ("popularity", {}),
}
"""By label, recipe and settings: those of the profile ``local``."""
READ = ("mendertok", "sasrec")
"""Arms whose layer is also fitted with what readers know of every user."""
COLUMNS = ("none", "true", "other", "success", "control", "halved", "own")


class PlantedWorld:
    """A world's catalogue, histories (with what a perfect reader says of each user), tastes and attributes."""

    def __init__(self, seed: int, users: int, items: int) -> None:
        world = grow_world(WorldSettings(seed=seed, users=users, items=items))
        shelf = sorted({p.item.item_id: p.item for p in world.positions}.values(), key=lambda item: item.item_id)
        texts = [
            item_text(
                item_id=item.item_id,
                title=item.title,
                brand=item.brand,
                categories=[item.category.parent, item.category.name],
                price=item.price,
                description=" ".join(item.description),
                description_words=60,
            )
            for item in shelf
        ]
        titles = tuple(item.title for item in shelf)
        self.catalogue = Catalogue(tuple(item.item_id for item in shelf), titles, tuple(texts))
        self.has = {name: np.array([name in item.attributes for item in shelf]) for name in ATTRIBUTES}
        tastes = {user.user_id: user.taste_at for user in world.users}
        rows: dict[str, list[int]] = {}
        self.tastes: dict[str, list[Taste]] = {}
        told: dict[str, dict[int, tuple[str, ...]]] = {}
        for place in world.positions:
            rows.setdefault(place.user_id, []).append(self.catalogue.index[place.item.item_id])
            self.tastes.setdefault(place.user_id, []).append(tastes[place.user_id](place.position))
            review = place.review
            opinions = [(LIKE, n) for n in (*review.liked, *review.missed)]
            opinions += [(DISLIKE, n) for n in (*review.disliked, *review.avoided)]
            lines = [line for sentiment, name in opinions if (line := attribute_line(sentiment, name))]
            known = told.setdefault(place.user_id, {})
            before = known[max(known)] if known else ()
            known[place.position] = tuple(dict.fromkeys([*lines, *before]))[:5]
        self.users = sorted(rows)
        ends = np.array([len(rows[user]) for user in self.users])
        self.histories = Histories(
            tuple(self.users),
            tuple(np.array(rows[user]) for user in self.users),
            ends - 2,
            ends - 1,
            tuple(told[user] for user in self.users),
        )

    def with_codes(self) -> "PlantedWorld":
        """The same world with semantic ids of residual k-means over the packaged encoder's vectors."""
        vectors = load_text_encoder("minilm-l6-v2").encode(self.catalogue.texts)
        kind = recipe_class("rqkmeans", "tokenizer")
        everything, ids = np.ones(len(vectors), dtype=bool), list(self.catalogue.item_ids)
        with tempfile.TemporaryDirectory() as home:
            context = FitContext(
                training=everything, version="v", ray=RaySettings(), run_name="v", home=home, stage="bench_words"
            )
            book = (
                kind(settings_class("rqkmeans", "tokenizer")(codebook_size=32))
                .fit(ArrayVectors(vectors), ids, context)
                .codebook
            )
        codes = dict(zip(book.item_ids, book.codes.tolist(), strict=True))
        self.catalogue = self.catalogue.with_codes(codes, book.level_sizes)
        return self


def sentence(likes: Sequence[str], dislikes: Sequence[str] = ()) -> str:
    """Bare attributes as a person would list them."""
    parts = [
        (verb, [ATTRIBUTES[n].adjective for n in names]) for verb, names in (("Prefers", likes), ("Avoids", dislikes))
    ]
    return ". ".join(f"{verb} {', '.join(names)}" for verb, names in parts if names)


def trained(arm: str, world: PlantedWorld, seed: int) -> Recommender:
    """An arm trained on the world's histories, nothing known of anybody but what they bought."""
    recipe, settings = ARMS[arm]
    kind = recipe_class(recipe)
    own = settings_class(recipe)(seed=seed, **settings)
    torch.manual_seed(own.seed)
    model = kind(own, world.catalogue)
    model.fit_counts(world.histories)
    if kind.trainable:
        examples = model.training_examples(unread(world.histories))
        model.prepare(examples)
        valid = evaluation_examples(world.histories, "valid", own.max_history)
        model.load_trained_state(fit(model, InMemoryExamples(examples), InMemoryExamples(valid)).best)
    return model.eval()


class Asked:
    """A model and the test split of a world."""

    def __init__(self, model: Recommender, world: PlantedWorld) -> None:
        self.model, self.world = model, world
        self.examples = evaluation_examples(world.histories, "test", model.settings.max_history)
        self.targets = self.examples.targets
        users = [world.users[int(user)] for user in self.examples.users]
        tastes = [world.tastes[u][int(p)] for u, p in zip(users, self.examples.positions, strict=True)]
        self.wishes = [(taste.likes, taste.dislikes) for taste in tastes]
        half = len(users) // 2
        self.others = self.wishes[half:] + self.wishes[:half]

    def scores(self, sentences: Sequence[str], strength: float = 1.0, rows: Sequence[int] | None = None) -> np.ndarray:
        """What the model ranks by, float[U, N], items of the history left out; of the users in `rows` or all."""
        parts = []
        examples = self.examples if rows is None else self.examples.at(np.array(rows))
        for batch in InMemoryExamples(examples.with_preferences(sentences)).batches(128, None):
            batch = batch.with_strength(strength)
            with torch.no_grad():
                found, bonus = self.model.log_probabilities(batch), self.model.bonus(batch)
            found = found if bonus is None else found + bonus
            parts.append(found.scatter(1, batch.seen.clamp_min(0), float("-inf")).numpy())
        return np.concatenate(parts)

    def quality(self, scores: np.ndarray) -> float:
        """NDCG@10."""
        own = scores[np.arange(len(scores)), self.targets][:, None]
        return float(ndcg(np.where(np.isinf(own[:, 0]), 0, (scores >= own).sum(axis=1)), 10).mean())

    def shares(self, scores: np.ndarray, attribute: str) -> np.ndarray:
        """Share of an attribute in each user's first ten."""
        return self.world.has[attribute][np.argsort(-scores, axis=1, kind="stable")[:, :10]].mean(axis=1)

    def row(self, answer, own: float) -> dict[str, float]:
        """All columns for a way to answer: wishes (likes and dislikes per user) and users, None for all, to scores."""
        plain = answer([((), ())] * len(self.targets), None)
        chosen = sorted(np.random.default_rng(0).permutation(len(self.targets))[:PROBED_USERS].tolist())
        names = sorted(ATTRIBUTES, key=lambda name: -self.world.has[name].sum())[:PROBED_ATTRIBUTES]
        wished = {name: answer([((name,), ())] * len(chosen), chosen) for name in names}
        success, control, halved = [], [], []
        for number, name in enumerate(names):
            before, after = self.shares(plain[chosen], name), self.shares(wished[name], name)
            other = self.shares(wished[names[(number + 7) % len(names)]], name)
            refused = self.shares(answer([((), (name,))] * len(chosen), chosen), name)
            success.append(((after > 0) & (after >= 2 * before)).mean())
            control.append(((other > 0) & (other >= 2 * before)).mean())
            halved.append((refused <= before / 2)[before > 0].mean())
        found = (
            self.quality(plain),
            self.quality(answer(self.wishes, None)),
            self.quality(answer(self.others, None)),
            *(float(np.nanmean(values)) for values in (success, control, halved)),
            own,
        )
        return dict(zip(COLUMNS, found, strict=True))

    def alone(self) -> dict[str, float]:
        """The model without a layer, told the words where it reads them."""
        known = latest_preferences(self.world.histories, self.examples)
        return self.row(self.told, self.quality(self.scores(known)))

    def told(self, wishes: Sequence[tuple[Sequence[str], Sequence[str]]], rows: Sequence[int] | None) -> np.ndarray:
        """Scores for wishes put as sentences."""
        return self.scores([sentence(*wish) for wish in wishes], rows=rows)

    def steered(self, known: Sequence[str]) -> dict[str, float]:
        """The model with its layer, and what is `known` of each user."""
        return self.row(self.told, self.quality(self.scores(known, self.model.known_weight)))

    def floor(self, weight: float) -> dict[str, float]:
        """Twenty lines: standardised -log(rank) and cosines."""
        encoder = load_text_encoder("minilm-l6-v2")
        items = encoder.encode(self.world.catalogue.texts)
        words = {name: items @ encoder.encode([ATTRIBUTES[name].adjective])[0] for name in ATTRIBUTES}
        plain = self.scores([""] * len(self.targets))
        out = np.isinf(plain)
        ranks = (-plain).argsort(axis=1, kind="stable").argsort(axis=1) + 1
        base = _standard(-np.log(ranks), out)

        def answer(wishes: Sequence[tuple[Sequence[str], Sequence[str]]], rows: Sequence[int] | None) -> np.ndarray:
            none = np.zeros(len(items))
            told = np.array([sum((words[n] for n in yes), none) - sum(words[n] for n in no) for yes, no in wishes])
            kept = slice(None) if rows is None else rows
            return np.where(out[kept], -np.inf, base[kept] + weight * _standard(told, out[kept]))

        return self.row(answer, float("nan"))


def _standard(values: np.ndarray, out: np.ndarray) -> np.ndarray:
    kept = np.where(out, np.nan, values)
    spread = np.nanstd(kept, axis=1, keepdims=True)
    return np.where(
        out | (spread < 1e-9), 0, (kept - np.nanmean(kept, axis=1, keepdims=True)) / np.maximum(spread, 1e-9)
    )


def unread(histories: Histories) -> Histories:
    """The same histories, with nothing known of anybody."""
    return replace(histories, preferences=({},) * len(histories))


def mixed_up(histories: Histories) -> Histories:
    """The same histories, each with what is known of somebody else."""
    half = len(histories) // 2
    return replace(histories, preferences=(*histories.preferences[half:], *histories.preferences[:half]))


def run_seed(seed: int, arms: Sequence[str], users: int, items: int) -> dict[str, dict[str, float]]:
    """Rows of one world by label."""
    world = PlantedWorld(seed, users, items)
    if any(Need.CODES in recipe_class(ARMS[arm][0]).needs for arm in arms):
        world.with_codes()
    found: dict[str, dict[str, float]] = {}
    for arm in arms:
        begun = time.monotonic()
        model = trained(arm, world, seed)
        asked = Asked(model, world)
        found[arm] = asked.alone()
        if arm == "sasrec":
            found |= {f"sasrec, floor {weight}": asked.floor(weight) for weight in FLOOR_WEIGHTS}
        readers = {"": unread(world.histories)}
        if arm in READ:
            readers |= {", perfect reader": world.histories, ", users mixed up": mixed_up(world.histories)}
        for reader, histories in readers.items():
            model.steering = fitted_layer(model, histories, SteeringSettings(seed=seed))
            row = asked.steered(latest_preferences(histories, asked.examples))
            fit_of = model.steering.fit
            found[f"{arm} + layer{reader}"] = row | {"weight": fit_of.weight, "own_weight": fit_of.own_weight}
        model.steering = None
        print(f"seed {seed} {arm}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return found


def table(by_seed: Mapping[int, Mapping[str, Mapping[str, float]]]) -> str:
    """Means over seeds, and the spread (standard deviation) of the NDCGs."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    for label in next(iter(by_seed.values())):
        cells = []
        for name in COLUMNS:
            values = np.array([found[label][name] for found in by_seed.values()])
            spread = f" ± {values.std():.3f}" if name in ("none", "true", "other", "own") else ""
            cells.append("-" if np.isnan(values).any() else f"{values.mean():.3f}{spread}")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="7,8,9", help="of the worlds and of training")
    parser.add_argument("--arms", default=",".join(ARMS), help=f"of {', '.join(ARMS)}")
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--items", type=int, default=160)
    parser.add_argument("--out", type=Path, help="JSON file with the numbers of each seed")
    given = parser.parse_args()
    arms = given.arms.split(",")
    by_seed = {int(s): run_seed(int(s), arms, given.users, given.items) for s in given.seeds.split(",")}
    if given.out:
        given.out.write_text(json.dumps(by_seed, indent=1))
    print(table(by_seed))


if __name__ == "__main__":
    main()
