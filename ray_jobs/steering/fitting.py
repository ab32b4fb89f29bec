"""Fit the steering layer of a trained recommender: terms from the catalogue, weights on the validation split.

Each validation user gets a sentence built from item texts: a wish for a term of the target, two for terms of the
history, and two refusals of terms that the history does not have. On planted worlds this gives the same weights as the
users' true tastes, and it needs no language model. The weights of wishes and refusals maximise NDCG@10 when a share
`SteeringSettings.misread` of the users get another user's sentence: too small a weight wastes what the words say, too
large a weight follows words that were not meant. A recipe that reads preferences also gets the sentence if that was
better. The weight of known preferences is fitted on users who have some, and is 0 unless the paired interval of the
gain lies above 0.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from infra.progress import phased
from ray_jobs.data.batches import Batch, InMemoryExamples
from ray_jobs.data.catalogue import IntArray
from ray_jobs.data.examples import evaluation_examples, latest_preferences
from ray_jobs.data.histories import Histories
from ray_jobs.encoders.text import load_text_encoder
from ray_jobs.evaluation.metrics import ndcg, paired
from ray_jobs.recommenders.base import Recommender
from ray_jobs.steering.layer import Fit, SteeringLayer
from ray_jobs.steering.settings import SteeringSettings
from ray_jobs.steering.terms import Terms, build_terms
from ray_jobs.training.trainable import Notify, silent
from schemas.recipes import Need

MOST_USERS, MOST_CELLS = 400, 3_000_000
"""Largest number of users in the fit, and of users times items: each cell is a log-probability in memory."""
_OF_HISTORY, _REFUSALS = 2, 2
_COMMON = 0.05
"""Smallest share of the items that have a term of a built sentence; a rarer term would reveal the target."""
_FEWEST_KNOWN = 20
"""Fewest users with known preferences on which their weight is fitted."""


@phased("fitting the steering layer")
def fitted_layer(
    recommender: Recommender, histories: Histories, settings: SteeringSettings, notify: Notify = silent
) -> SteeringLayer | None:
    """The layer of a trained `recommender`; None without terms in the catalogue or users to fit on.

    Uses training and validation positions only.
    """
    notify(0, 3, "terms of the catalogue")
    encoder = load_text_encoder(settings.encoder).to(recommender.device)
    catalogue = recommender.catalogue
    terms = build_terms(catalogue.texts, encoder, settings.similarity, settings.most_items, settings.most_terms)
    users = min(MOST_USERS, max(1, MOST_CELLS // len(catalogue)))
    sample = _Sample.drawn(recommender, histories, terms.terms, users, settings.seed)
    if not len(terms) or not len(sample.targets):
        return None
    notify(1, 3, f"weights of words, on {len(sample.targets)} users")
    plain = sample.log_probabilities(recommender, [""] * len(sample.targets))
    unfitted = SteeringLayer(terms, Fit(weight=1.0, refusal=1.0))
    layer, measured = _fit_weight(recommender, unfitted, sample, plain, settings)
    notify(2, 3, "weight of known preferences")
    own, found = _fit_own_weight(recommender, layer, sample, plain, settings)
    return layer.with_fit(replace(layer.fit, own_weight=own, measured=measured | found))


@dataclass(frozen=True)
class _Sample:
    """Validation users with their histories, targets and sentences.

    Args:
        known: known preferences of each user, empty if there are none.
        made: a sentence built from item texts for each user.
    """

    batches: Sequence[Batch]
    seen: Sequence[IntArray]
    targets: IntArray
    known: Sequence[str]
    made: Sequence[str]

    @classmethod
    def drawn(cls, recommender: Recommender, histories: Histories, terms: Terms, users: int, seed: int) -> "_Sample":
        """At most `users` users with a validation target, those with known preferences first."""
        settings = recommender.settings
        everyone = evaluation_examples(histories, "valid", settings.max_history)
        known = latest_preferences(histories, everyone)
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(everyone))
        rows = np.sort(order[np.argsort([not known[row] for row in order], kind="stable")][:users])
        examples = everyone.at(rows)
        before = [
            histories.items[int(user)][: int(position)]
            for user, position in zip(examples.users, examples.positions, strict=True)
        ]
        made = _made_sentences(terms, len(recommender.catalogue), before, examples.targets, rng)
        batches = list(InMemoryExamples(examples).batches(settings.evaluation_batch_size, None))
        return cls(batches, before, examples.targets, [known[row] for row in rows], made)

    @torch.no_grad()
    def log_probabilities(self, recommender: Recommender, sentences: Sequence[str]) -> npt.NDArray[np.float32]:
        """Log-probability of each item for each user, -inf for items of the history, float32[V, N]."""
        recommender.eval()
        parts, start = [], 0
        for batch in self.batches:
            given = batch.with_columns(preferences=tuple(sentences[start : start + len(batch)]))
            parts.append(recommender.log_probabilities(given.to(recommender.device)).float().cpu().numpy())
            start += len(batch)
        found = np.concatenate(parts)
        for row, seen in zip(found, self.seen, strict=True):
            row[seen] = -np.inf
        return found

    def gains(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """NDCG@10 of each user, float64[V], ties against the model."""
        own = scores[np.arange(len(self.targets)), self.targets][:, None]
        ranks = np.where(np.isinf(own[:, 0]), 0, (scores >= own).sum(axis=1))
        return ndcg(ranks, 10)


def _made_sentences(
    terms: Terms,
    size: int,
    before: Sequence[IntArray],
    targets: IntArray,
    rng: np.random.Generator,
) -> list[str]:
    numbers = np.diff(terms.starts)
    telling = np.flatnonzero(numbers >= _COMMON * size)
    rows = np.repeat(np.arange(len(numbers)), numbers)
    kept = np.flatnonzero(np.isin(rows, telling))
    by_item = kept[np.argsort(terms.items[kept], kind="stable")]
    starts = np.searchsorted(terms.items[by_item], np.arange(size + 1))

    def terms_of(item: int) -> IntArray:
        found: IntArray = rows[by_item[starts[item] : starts[item + 1]]]
        return found

    sentences = []
    for history, target in zip(before, targets.tolist(), strict=True):
        past = np.concatenate([np.zeros(0, dtype=np.int64), *map(terms_of, history.tolist())])
        pools = [terms_of(target), *[past] * _OF_HISTORY]
        wished = [int(rng.choice(pool)) for pool in pools if len(pool)]
        free = np.setdiff1d(telling, past).tolist()
        refused = rng.choice(free, min(_REFUSALS, len(free)), replace=False).tolist() if free else []
        wishes = ", ".join(terms.forms[row] for row in dict.fromkeys(wished))
        refusals = ", ".join(terms.forms[row] for row in refused)
        sentences.append(". ".join([f"Prefers {wishes}"] * bool(wishes) + [f"Avoids {refusals}"] * bool(refusals)))
    return sentences


def _fit_weight(
    recommender: Recommender,
    layer: SteeringLayer,
    sample: _Sample,
    plain: npt.NDArray[np.float32],
    settings: SteeringSettings,
) -> tuple[SteeringLayer, dict[str, float]]:
    own, half = list(sample.made), len(sample.made) // 2
    others = own[half:] + own[:half]
    bases = {False: (plain, plain)}
    if Need.PREFERENCES in recommender.needs:
        bases[True] = (sample.log_probabilities(recommender, own), sample.log_probabilities(recommender, others))
    best: tuple[float, Fit, float, float] | None = None
    for refusal in settings.refusals:
        tried = layer.with_fit(Fit(weight=1.0, refusal=refusal))
        bonus = [_bonus(tried, given) for given in (own, others)]
        for reads, weight in itertools.product(bases, settings.weights):
            mine, theirs = (
                float(sample.gains(base + np.float32(weight) * extra).mean())
                for base, extra in zip(bases[reads], bonus, strict=True)
            )
            score = (1 - settings.misread) * mine + settings.misread * theirs
            if best is None or score > best[0] + 1e-9:
                best = (score, Fit(weight=weight, refusal=refusal, reads=reads), mine, theirs)
    assert best is not None
    measured = {
        "users": len(own),
        "ndcg_10": float(sample.gains(plain).mean()),
        "ndcg_10_own_words": best[2],
        "ndcg_10_other_words": best[3],
    }
    return layer.with_fit(best[1]), measured


def _fit_own_weight(
    recommender: Recommender,
    layer: SteeringLayer,
    sample: _Sample,
    plain: npt.NDArray[np.float32],
    settings: SteeringSettings,
) -> tuple[float, dict[str, float]]:
    some = np.flatnonzero([bool(known) for known in sample.known])
    if len(some) < _FEWEST_KNOWN:
        return 0.0, {"own_users": float(len(some))}
    base = sample.log_probabilities(recommender, sample.known) if layer.fit.reads else plain
    bonus = _bonus(layer, sample.known) / np.float32(layer.fit.weight)
    without = sample.gains(plain)[some]
    tried = {weight: sample.gains(base + np.float32(weight) * bonus)[some] for weight in settings.weights}
    best = max(tried, key=lambda weight: float(tried[weight].mean()))
    gain = paired(tried[best], without).difference
    found = {
        "own_users": float(len(some)),
        "own_gain": gain.mean,
        "own_gain_low": gain.low,
        "own_gain_high": gain.high,
    }
    return (best if gain.low > 0 else 0.0), found


def _bonus(layer: SteeringLayer, sentences: Sequence[str]) -> npt.NDArray[np.float32]:
    found = layer.bonus(sentences)
    return np.zeros((len(sentences), layer.terms.size), np.float32) if found is None else found.numpy()
