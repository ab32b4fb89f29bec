"""The contract that every recommender recipe fills."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor

from infra.errors import SettingError
from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import Examples, training_examples
from ray_jobs.data.histories import Histories
from ray_jobs.encoders.text import TextEncoder
from ray_jobs.evaluation.metrics import ndcg
from ray_jobs.recommenders.settings import RecipeSettings
from ray_jobs.steering.layer import SteeringLayer
from ray_jobs.training.phases import Phase, phases_from
from ray_jobs.training.trainable import BatchSource, Metric, Notify, Trainable, silent
from ray_jobs.training.workers import SINGLE_WORKER, Workers
from schemas.errors import DataError
from schemas.recipes import RECIPES, TEXT_ENCODER, Need


class Recommender(Trainable):
    """A recipe: built from its settings and a catalogue, trained by `loss`, asked by `topk`."""

    metric = Metric("valid_ndcg_10", "valid NDCG@10")
    can_split = True
    gathered_methods = ("topk", "ranks")

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]]
    """As the index has it; a need that a setting of the recipe switches off is among them."""
    trainable: ClassVar[bool] = True
    every_prefix: ClassVar[bool] = True
    """True: each training position is an example of its own; False: one example per user, scored at all positions."""
    earlier: ClassVar[Mapping[str, Any]] = {}
    """Values of the settings that bundles of earlier releases do not name."""
    item_rows: ClassVar[Mapping[str, int]] = {}
    """Names of the trained tensors that have a row per item of the catalogue, and the row of the first item."""
    computed: ClassVar[frozenset[str]] = frozenset()
    """Names of the tensors of the trained state that are computed from the data, not learned."""

    settings: RecipeSettings
    """Those that the recipe was built with; each recipe declares its own kind."""
    cold_items: Tensor | None
    """bool[N], items that never come out because nobody has met them; None where there are none."""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if (listed := RECIPES.get(cls.__dict__.get("name", ""))) is not None:
            cls.needs = listed.needs

    def __init__(self, settings: RecipeSettings, catalogue: Catalogue) -> None:
        super().__init__()
        self.catalogue = catalogue
        known = None if self.uses_content else catalogue.interacted
        self.register_buffer("cold_items", None if known is None else torch.from_numpy(~known), persistent=False)
        self.settings = settings
        self.seed, self.batch_size = settings.seed, settings.batch_size
        self.precision, self.compiled = settings.precision, settings.compile
        self.steering: SteeringLayer | None = None
        """Lets sentences move the list of a trained recipe; see `ray_jobs.steering.layer`."""
        if Need.CODES in self.needs and catalogue.codes is None:
            raise DataError(
                f"recipe {self.name} needs semantic ids: run the semantic_ids stage for this data set first"
            )
        if Need.TITLES in self.needs and all(t == i for t, i in zip(catalogue.titles, catalogue.item_ids, strict=True)):
            raise DataError(
                f"recipe {self.name} needs item titles, and no item of this data set has one; "
                "use a recipe that reads ids only (sasrec, popularity) or land an item file"
            )

    @classmethod
    def packages(cls, settings: RecipeSettings, *, steered: bool) -> tuple[str, ...]:
        """Packages that loading the recipe needs beside those that every recipe needs.

        Args:
            settings: of the recipe.
            steered: whether it has a steering layer, which encodes sentences.
        """
        own = RECIPES[cls.name].packages
        return (*own, *(name for name in TEXT_ENCODER if steered and name not in own))

    @property
    def conditions(self) -> tuple[str, ...]:
        """What the recipe can be given at evaluation: a user's known preferences where they count."""
        read = Need.PREFERENCES in self.needs if self.steering is None else self.steering.fit.own_weight > 0
        return ("history", "history+preference") if read else ("history",)

    @property
    def uses_content(self) -> bool:
        """Whether items that nobody has met can come out: where their content says what they are like.

        All that a recipe of ids knows of such an item are the numbers that it began with.
        """
        return not self.needs.isdisjoint({Need.CODES, Need.VECTORS})

    @property
    def known_weight(self) -> float:
        """How strongly what is known of a user counts beside a sentence that comes with a request."""
        return self.steering.fit.own_weight / self.steering.fit.weight if self.steering is not None else 1.0

    @property
    def preference_encoder(self) -> tuple[TextEncoder, int] | None:
        """What the recipe itself reads preferences with, and how many word pieces; None where it reads none."""
        return None

    @property
    def sentence_encoder(self) -> tuple[TextEncoder, int] | None:
        """What reads the sentence of a request, and how many word pieces at most; None where nothing does."""
        if self.steering is None:
            return self.preference_encoder
        encoder = self.steering.terms.text_encoder
        readers = [(encoder, encoder.max_length), self.preference_encoder if self.steering.fit.reads else None]
        return min((one for one in readers if one is not None), key=lambda one: one[1])

    def read(self, batch: Batch) -> tuple[str, ...]:
        """The preferences that the recipe itself reads; those that say nothing, or must not count, are empty.

        A recipe with a steering layer reads what matches something in the catalogue, and nothing where the layer alone
        was better on validation.
        """
        if self.steering is None:
            return batch.preferences
        counts = [1.0] * len(batch) if batch.strength is None else batch.strength.tolist()
        return tuple(
            sentence if factor and self.steering.is_read(sentence) else ""
            for sentence, factor in zip(batch.preferences, counts, strict=True)
        )

    def bonus(self, batch: Batch) -> Tensor | None:
        """What the steering layer adds to each item's log-probability, float[B, N]; None where it adds nothing."""
        if self.steering is None:
            return None
        found = self.steering.bonus(batch.preferences, batch.strength)
        return None if found is None else found.to(self.device)

    def settings_dict(self) -> dict[str, Any]:
        """Settings as plain values, enough to build the recipe again."""
        return asdict(self.settings)

    def training_examples(self, histories: Histories) -> Examples:
        """What the recipe trains on. Sees training positions only."""
        return training_examples(histories, self.settings.max_history, self.every_prefix)

    def fit_counts(self, histories: Histories) -> None:
        """Estimate what needs no gradient, from training positions only."""

    def prepare(self, preferences_and_histories: Examples, notify: Notify = silent) -> None:
        """Compute what stays the same over all epochs, such as states of a frozen encoder."""

    def release(self) -> None:
        """Forget what `prepare` keeps in memory."""

    def phases(self) -> Sequence[Phase]:
        """The parts of a training run, one after another; settings can ask for others."""
        return (self.settings.phase(),)

    def planned_phases(self) -> tuple[Phase, ...]:
        """See `Trainable.planned_phases`."""
        settings = self.settings
        return phases_from(settings.phases, settings.phase()) if settings.phases else tuple(self.phases())

    def parts(self, batch: Batch) -> Sequence[Batch]:
        """As many as the setting ``accumulate`` says, fewer of a batch that is not full."""
        size = -(-self.settings.batch_size // self.settings.accumulate)
        if len(batch) <= size:
            return [batch]
        return [batch.rows(start, start + size) for start in range(0, len(batch), size)]

    @torch.no_grad()
    def judge(self, source: BatchSource, workers: Workers = SINGLE_WORKER) -> float:
        """Mean NDCG@10 over the users of `source`; workers take turns batch by batch.

        The same number as `ray_jobs.evaluation.evaluator.evaluate` has for these users: what they have seen, inside the
        window or not, is left out of the ranking, or, without the setting ``validate_unseen``, ranked with the rest.
        """
        self.eval()
        unseen, size = self.settings.validate_unseen, self.settings.evaluation_batch_size
        last = math.ceil(len(source) / size) - 1
        total = torch.zeros(1, dtype=torch.float64)
        for number, batch in enumerate(source.batches(size, None)):
            turn = number % workers.world
            # Split weights are gathered by all workers together, so those without a last batch of their own help along.
            if turn == workers.rank or (number == last and turn < workers.rank):
                placed = batch.to(self.device)
                assert placed.seen is not None or not unseen, "validation examples say what their users have seen"
                gains = ndcg(self.ranks(placed, placed.seen if unseen else None).cpu().numpy(), 10)
                total += float(gains.sum()) * (turn == workers.rank)
        return float(workers.all_reduce(total.to(self.device))) / max(1, len(source))

    def _as_log_probabilities(self, scores: Tensor) -> Tensor:
        """Scores of all items, float[B, N], as log-probabilities; they are logits unless a recipe overrides this."""
        return scores.log_softmax(1)

    def _steered(self, scores: Tensor, batch: Batch) -> Tensor:
        """Scores of all items, float[B, N]; rows that words move have log-probability plus bonus instead."""
        bonus = self.bonus(batch)
        if bonus is None:
            return scores
        moved = bonus.any(dim=1, keepdim=True)
        return torch.where(moved, self._as_log_probabilities(scores) + bonus, scores)

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """See `Trainable.loss`."""

    @abstractmethod
    def log_probabilities(self, batch: Batch) -> Tensor:
        """Log-probability of every item of the catalogue, float[B, N], the steering layer left out."""

    def check_width(self, k: int) -> None:
        """Raises SettingError where the recipe does not find `k` items."""

    @abstractmethod
    def topk(self, batch: Batch, k: int, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The best items; a preference moves them where the recipe reads it or has a steering layer.

        Args:
            exclude: int64[B, E], items that must not come out, padded with -1.

        Returns:
            Catalogue indices int64[B, k], best first and -1 where fewer exist, and scores float[B, k].
        """

    @abstractmethod
    def ranks(self, batch: Batch, exclude: Tensor | None = None) -> Tensor:
        """Rank of each target from 1, ties against the model, int64[B]; 0 where the recipe does not place it."""

    @torch.no_grad()
    def ranks_and_topk(self, batch: Batch, k: int, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`ranks` and the items of `topk`; a recipe that can has both from one pass over the batch."""
        return self.ranks(batch, exclude), self.topk(batch, k, exclude)[0]

    def candidate_scores(self, batch: Batch, candidates: Tensor) -> Tensor:  # noqa: ARG002  (for recipes that can)
        """Scores float[B, C] of given catalogue items int64[B, C], for rankings among sampled negatives.

        Raises:
            SettingError: the recipe cannot score an item that it did not choose itself.
        """
        raise SettingError(f"recipe {self.name} cannot score given items: set evaluate.sampled_negatives to 0 for it")


class ScoringRecommender(Recommender):
    """A recipe that gives a score to every item of the catalogue at once."""

    @abstractmethod
    def scores(self, batch: Batch) -> Tensor:
        """float[B, N], larger is better."""

    @torch.no_grad()
    def log_probabilities(self, batch: Batch) -> Tensor:
        """Log-probability of every item, float[B, N]; the steering layer stays out of it."""
        return self._as_log_probabilities(self.scores(batch))

    def _masked_scores(self, batch: Batch, exclude: Tensor | None) -> Tensor:
        scores = without(self._steered(self.scores(batch), batch), exclude)
        return scores if self.cold_items is None else scores.masked_fill(self.cold_items, float("-inf"))

    @torch.no_grad()
    def topk(self, batch: Batch, k: int, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The k best by score; equal scores in the order of item ids."""
        return best(self._masked_scores(batch, exclude), k)

    @torch.no_grad()
    def ranks(self, batch: Batch, exclude: Tensor | None = None) -> Tensor:
        """Exact rank over the whole catalogue; an item with the target's score counts as ahead of it."""
        return rank_of(batch.targets, self._masked_scores(batch, exclude))

    @torch.no_grad()
    def ranks_and_topk(self, batch: Batch, k: int, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Both from one scoring of the catalogue."""
        scores = self._masked_scores(batch, exclude)
        return rank_of(batch.targets, scores), best(scores, k)[0]

    @torch.no_grad()
    def candidate_scores(self, batch: Batch, candidates: Tensor) -> Tensor:
        """The candidates' share of the scores that `topk` ranks by."""
        return self._masked_scores(batch, None).gather(1, candidates)


def without(scores: Tensor, exclude: Tensor | None) -> Tensor:
    """Scores float[B, N] with minus infinity for the items int64[B, E], padded with -1, that must not come out."""
    if exclude is None or not exclude.numel():
        return scores
    items = scores.shape[1]
    hit = torch.zeros(len(scores), items + 1, dtype=torch.bool, device=scores.device)
    hit.scatter_(1, torch.where(exclude < 0, items, exclude), True)
    return scores.masked_fill(hit[:, :-1], float("-inf"))


def rank_of(targets: Tensor, scores: Tensor) -> Tensor:
    """Rank int64[B] of one item per row of float[B, N], ties against it; 0 where its score is minus infinity."""
    own = scores.gather(1, targets[:, None])
    return torch.where(own[:, 0].isinf(), 0, (scores >= own).sum(dim=1))


def best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Columns int64[B, k] and values of the k largest of float[B, N], the earlier column first among equals.

    Minus infinity and what is no number are no candidates: their column is -1, as are places beyond N.
    """
    found = min(k, scores.shape[1])
    values, columns = scores.topk(found, dim=1)
    if values.isnan().any():
        return best(scores.masked_fill(scores.isnan(), float("-inf")), k)
    # `topk` is fast but takes any of the equals at its end; where it had a choice, they are replaced by the first ones.
    last = values[:, -1:]
    loose = ((scores >= last).sum(dim=1) > found).nonzero()[:, 0]
    if len(loose):
        numbers = torch.arange(scores.shape[1], dtype=torch.int32, device=scores.device)
        level = torch.where(scores[loose] == last[loose], numbers, scores.shape[1])
        firsts = level.topk(found, dim=1, largest=False).values.long()
        above = values[loose] > last[loose]
        place = (numbers[:found] - above.sum(dim=1, keepdim=True)).clamp(min=0)
        columns[loose] = torch.where(above, columns[loose], firsts.gather(1, place))
    columns = columns.sort(dim=1).values
    order = torch.sort(scores.gather(1, columns), dim=1, descending=True, stable=True)
    items = torch.full((len(scores), k), -1, dtype=torch.int64, device=scores.device)
    padded = torch.full((len(scores), k), float("-inf"), dtype=scores.dtype, device=scores.device)
    padded[:, :found] = order.values
    items[:, :found] = torch.where(order.values.isinf(), -1, columns.gather(1, order.indices))
    return items, padded
