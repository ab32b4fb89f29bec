"""The interface of recommender recipes."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor

from infra.errors import SettingError
from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.crops import Crop
from ray_jobs.data.examples import Examples, training_examples
from ray_jobs.data.histories import Histories
from ray_jobs.encoders.text import TextEncoder
from ray_jobs.evaluation.metrics import ndcg
from ray_jobs.recommenders.settings import RecipeSettings, TransformerSettings
from ray_jobs.steering.layer import SteeringLayer
from ray_jobs.training.phases import Phase, phases_from
from ray_jobs.training.trainable import BatchSource, Metric, Notify, Trainable, silent
from ray_jobs.training.workers import SINGLE_WORKER, Workers
from schemas.errors import DataError
from schemas.recipes import RECIPES, TEXT_ENCODER, Need, learned_vectors
from schemas.stages import maker_of


class Recommender(Trainable):
    """A recipe: built from settings and a catalogue, trained by `loss`, queried by `topk`."""

    metric = Metric("valid_ndcg_10", "valid NDCG@10")
    can_split = True
    gathered_methods: ClassVar[tuple[str, ...]] = ("topk", "ranks")

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]]
    """From the index of recipes; includes needs that a setting of the recipe can switch off."""
    trainable: ClassVar[bool] = True
    every_prefix: ClassVar[bool] = True
    """True: each training position is an example; False: one example per user, scored at all positions."""
    earlier: ClassVar[Mapping[str, Any]] = {}
    """Values of settings that are missing in bundles of earlier releases."""
    item_rows: Mapping[str, int] = {}
    """Trained tensors with a row per item of the catalogue, and the row of the first item."""
    computed: ClassVar[frozenset[str]] = frozenset()
    """Tensors of the trained state that are computed from the data, not learned."""

    settings: RecipeSettings
    """Each recipe declares its own class of settings."""
    cold_items: Tensor | None
    """bool[N], items without training interactions, which are never recommended; None if there are none."""

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
        """Lets sentences steer a trained recipe; see `ray_jobs.steering.layer`."""
        if Need.CODES in self.needs and catalogue.codes is None:
            raise DataError(
                f"recipe {self.name} needs semantic ids: run the semantic_ids stage for this data set first"
            )
        for name in learned_vectors(self.needs_with(settings)):
            if name not in catalogue.vectors:
                table = name.partition(".")[0]
                raise DataError(
                    f"recipe {self.name} needs {table}: run the stage {maker_of(table)} for this data set first"
                )
        if Need.TITLES in self.needs and all(t == i for t, i in zip(catalogue.titles, catalogue.item_ids, strict=True)):
            raise DataError(
                f"recipe {self.name} needs item titles, and no item of this data set has one; "
                "use a recipe that reads ids only (sasrec, popularity) or land an item file"
            )

    @classmethod
    def needs_with(cls, settings: RecipeSettings) -> frozenset[Need]:
        """The needs that no setting switches off."""
        listed = RECIPES.get(cls.name)
        return cls.needs if listed is None else listed.needs_with(vars(settings))

    @classmethod
    def packages(cls, settings: RecipeSettings, *, steered: bool) -> tuple[str, ...]:
        """Additional packages that loading the recipe needs.

        Args:
            steered: whether it has a steering layer, which encodes sentences.
        """
        own = RECIPES[cls.name].packages
        return (*own, *(name for name in TEXT_ENCODER if steered and name not in own))

    @property
    def conditions(self) -> tuple[str, ...]:
        """Inputs to evaluate the recipe with: a user's known preferences only if they have an effect."""
        read = Need.PREFERENCES in self.needs if self.steering is None else self.steering.fit.own_weight > 0
        return ("history", "history+preference") if read else ("history",)

    @property
    def uses_content(self) -> bool:
        """Whether the recipe knows items by their content, so that it can recommend cold items.

        A recipe of ids has nothing but initial weights for such an item.
        """
        return not self.needs.isdisjoint({Need.CODES, Need.VECTORS})

    @property
    def crop(self) -> Crop | None:
        """What every epoch of training takes of the histories; None for all, as without the setting `crop`."""
        least = self.settings.crop if isinstance(self.settings, TransformerSettings) else 0
        return Crop(least, self.settings.max_history) if least else None

    @property
    def known_weight(self) -> float:
        """Weight of a user's known preference relative to a sentence in a request."""
        return self.steering.fit.own_weight / self.steering.fit.weight if self.steering is not None else 1.0

    @property
    def preference_encoder(self) -> tuple[TextEncoder, int] | None:
        """The recipe's own encoder of preferences and its maximum number of tokens; None if it reads none."""
        return None

    @property
    def sentence_encoder(self) -> tuple[TextEncoder, int] | None:
        """The encoder of a request's sentence and its maximum number of tokens; None if nothing reads it."""
        if self.steering is None:
            return self.preference_encoder
        encoder = self.steering.terms.text_encoder
        found = [(encoder, encoder.max_length)]
        if self.steering.fit.reads and self.preference_encoder is not None:
            found.append(self.preference_encoder)
        return min(found, key=lambda one: one[1])

    def read(self, batch: Batch) -> tuple[str, ...]:
        """The preferences that the recipe itself reads, empty where it reads none.

        With a steering layer it reads only sentences that match something in the catalogue, and none at all if the
        layer alone did better on validation.
        """
        if self.steering is None:
            return batch.preferences
        counts = [1.0] * len(batch) if batch.strength is None else batch.strength.tolist()
        return tuple(
            sentence if factor and self.steering.is_read(sentence) else ""
            for sentence, factor in zip(batch.preferences, counts, strict=True)
        )

    def bonus(self, batch: Batch) -> Tensor | None:
        """The steering layer's addition to each item's log-probability, float[B, N]; None if there is none."""
        if self.steering is None:
            return None
        found = self.steering.bonus(batch.preferences, batch.strength)
        return None if found is None else found.to(self.device)

    def settings_dict(self) -> dict[str, Any]:
        """Settings as plain values, enough to rebuild the recipe."""
        return asdict(self.settings)

    def training_examples(self, histories: Histories) -> Examples:
        """The recipe's training examples, from training positions only; to be cropped, one per user, with all items."""
        if self.crop is not None:
            return training_examples(histories, max(map(len, histories.items), default=1), every_prefix=False)
        return training_examples(histories, self.settings.max_history, self.every_prefix)

    def told_examples(self, histories: Histories) -> Examples | None:  # noqa: ARG002  (for recipes that learn from it)
        """What is said of users at training positions, see `ray_jobs.data.user_texts`; None to read nothing."""
        return None

    def hear(self, told: Examples, notify: Notify = silent) -> None:
        """Take the `told_examples`, before training and again when a run resumes."""

    def fit_counts(self, histories: Histories) -> None:
        """Fit statistics that need no gradient, from training positions only."""

    def prepare(self, examples: Examples, notify: Notify = silent) -> None:
        """Cache what stays the same over all epochs, such as states of a frozen encoder."""

    def release(self) -> None:
        """Drop what `prepare` cached."""

    def phases(self) -> Sequence[Phase]:
        """See `Trainable.phases`."""
        return (self.settings.phase(),)

    def planned_phases(self) -> tuple[Phase, ...]:
        """See `Trainable.planned_phases`."""
        settings = self.settings
        return phases_from(settings.phases, settings.phase()) if settings.phases else tuple(self.phases())

    def parts(self, batch: Batch) -> Sequence[Batch]:
        """At most ``settings.accumulate`` micro-batches."""
        size = -(-self.settings.batch_size // self.settings.accumulate)
        if len(batch) <= size:
            return [batch]
        return [batch.rows(start, start + size) for start in range(0, len(batch), size)]

    def judge(self, source: BatchSource, workers: Workers = SINGLE_WORKER) -> float:
        """Mean NDCG@10 over the users of `source`.

        Equals the result of `ray_jobs.evaluation.evaluator.evaluate` for these users: all items that they have seen are
        excluded, unless the setting ``validate_unseen`` is off.
        """
        return float(self.mean_gains(source, self.ranks, workers))

    @torch.no_grad()
    def mean_gains(
        self, source: BatchSource, ranks: Callable[[Batch, Tensor | None], Tensor], workers: Workers = SINGLE_WORKER
    ) -> Tensor:
        """Mean NDCG@10 over the users of `source`, float64[...]; the workers take turns batch by batch.

        Args:
            ranks: as the method of that name, one of `gathered_methods`; may return several ranks, int64[..., B].
        """
        self.eval()
        unseen, size = self.settings.validate_unseen, self.settings.evaluation_batch_size
        last = math.ceil(len(source) / size) - 1
        total = torch.zeros((), dtype=torch.float64)
        for number, batch in enumerate(source.batches(size, None)):
            turn = number % workers.world
            # Gathering sharded weights takes all workers, so those without a share of the last round compute it, too.
            if turn == workers.rank or (number == last and turn < workers.rank):
                batch = batch.to(self.device)
                assert batch.seen is not None or not unseen, "validation examples have the items that users have seen"
                gains = ndcg(ranks(batch, batch.seen if unseen else None).cpu().numpy(), 10).sum(axis=-1)
                total = total + torch.as_tensor(gains) * (turn == workers.rank)
        return workers.all_reduce(total.to(self.device)).cpu() / max(1, len(source))

    def _as_log_probabilities(self, scores: Tensor) -> Tensor:
        """Log-probabilities of scores float[B, N], which are logits unless a recipe overrides this."""
        return scores.log_softmax(1)

    def _steered(self, scores: Tensor, batch: Batch) -> Tensor:
        """Scores float[B, N]; rows with a bonus have log-probability plus bonus instead."""
        bonus = self.bonus(batch)
        if bonus is None:
            return scores
        steered = bonus.any(dim=1, keepdim=True)
        return torch.where(steered, self._as_log_probabilities(scores) + bonus, scores)

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """See `Trainable.loss`."""

    @abstractmethod
    def log_probabilities(self, batch: Batch) -> Tensor:
        """Log-probability of every item, float[B, N], without the steering layer."""

    def check_width(self, k: int) -> None:
        """Raises SettingError if the recipe cannot return `k` items."""

    @abstractmethod
    def topk(
        self, batch: Batch, k: int, exclude: Tensor | None = None, allowed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The best items, steered by preferences if the recipe reads them or has a steering layer.

        Args:
            exclude: int64[B, E], items to leave out, padded with -1.
            allowed: bool[B, N], the only items that may come; None for all.

        Returns:
            Catalogue indices int64[B, k], best first, padded with -1, and scores float[B, k].
        """

    @abstractmethod
    def ranks(self, batch: Batch, exclude: Tensor | None = None) -> Tensor:
        """Rank of each target from 1, ties against the model, int64[B]; 0 if the target is not ranked."""

    @torch.no_grad()
    def ranks_and_topk(self, batch: Batch, k: int, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`ranks` and the items of `topk`, in one pass if the recipe can."""
        return self.ranks(batch, exclude), self.topk(batch, k, exclude)[0]

    def candidate_scores(self, batch: Batch, candidates: Tensor) -> Tensor:  # noqa: ARG002  (for recipes that can)
        """Scores float[B, C] of catalogue items int64[B, C], for rankings among sampled negatives.

        Raises:
            SettingError: the recipe cannot score given items.
        """
        raise SettingError(f"recipe {self.name} cannot score given items: set evaluate.sampled_negatives to 0 for it")


class ScoringRecommender(Recommender):
    """A recipe that scores the whole catalogue at once."""

    @abstractmethod
    def scores(self, batch: Batch) -> Tensor:
        """Scores float[B, N], larger is better."""

    @torch.no_grad()
    def log_probabilities(self, batch: Batch) -> Tensor:
        """See `Recommender.log_probabilities`."""
        return self._as_log_probabilities(self.scores(batch))

    def _masked_scores(self, batch: Batch, exclude: Tensor | None, allowed: Tensor | None = None) -> Tensor:
        scores = without(self._steered(self.scores(batch), batch), exclude, allowed)
        return scores if self.cold_items is None else scores.masked_fill(self.cold_items, float("-inf"))

    @torch.no_grad()
    def topk(
        self, batch: Batch, k: int, exclude: Tensor | None = None, allowed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The k best by score; ties in the order of item ids."""
        return best(self._masked_scores(batch, exclude, allowed), k)

    @torch.no_grad()
    def ranks(self, batch: Batch, exclude: Tensor | None = None) -> Tensor:
        """Exact rank over the whole catalogue; ties count against the target."""
        return rank_of(batch.targets, self._masked_scores(batch, exclude))

    @torch.no_grad()
    def ranks_and_topk(self, batch: Batch, k: int, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Recommender.ranks_and_topk`; scores the catalogue once."""
        scores = self._masked_scores(batch, exclude)
        return rank_of(batch.targets, scores), best(scores, k)[0]

    @torch.no_grad()
    def candidate_scores(self, batch: Batch, candidates: Tensor) -> Tensor:
        """See `Recommender.candidate_scores`; the scores that `topk` ranks by."""
        return self._masked_scores(batch, None).gather(1, candidates)


def without(scores: Tensor, exclude: Tensor | None, allowed: Tensor | None = None) -> Tensor:
    """Scores float[B, N] with -inf for excluded items int64[B, E], padded with -1, and where not `allowed`."""
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    if exclude is None or not exclude.numel():
        return scores
    items = scores.shape[1]
    hit = torch.zeros(len(scores), items + 1, dtype=torch.bool, device=scores.device)
    hit.scatter_(1, torch.where(exclude < 0, items, exclude), True)
    return scores.masked_fill(hit[:, :-1], float("-inf"))


def rank_of(targets: Tensor, scores: Tensor) -> Tensor:
    """Rank int64[B] of one item per row of float[B, N], ties against it; 0 if its score is -inf."""
    own = scores.gather(1, targets[:, None])
    return torch.where(own[:, 0].isinf(), 0, (scores >= own).sum(dim=1))


def best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Columns int64[B, k] and values of the k largest of float[B, N]; ties in the order of columns.

    -inf and NaN are no candidates; missing columns are -1.
    """
    found = min(k, scores.shape[1])
    values, columns = scores.topk(found, dim=1)
    if values.isnan().any():
        return best(scores.masked_fill(scores.isnan(), float("-inf")), k)
    # `topk` is fast but picks arbitrary columns among ties at its end; replace those by the first columns.
    last = values[:, -1:]
    tied = ((scores >= last).sum(dim=1) > found).nonzero()[:, 0]  # rows
    if len(tied):
        numbers = torch.arange(scores.shape[1], dtype=torch.int32, device=scores.device)
        equal = torch.where(scores[tied] == last[tied], numbers, scores.shape[1])
        firsts = equal.topk(found, dim=1, largest=False).values.long()
        above = values[tied] > last[tied]
        place = (numbers[:found] - above.sum(dim=1, keepdim=True)).clamp(min=0)
        columns[tied] = torch.where(above, columns[tied], firsts.gather(1, place))
    columns = columns.sort(dim=1).values
    order = torch.sort(scores.gather(1, columns), dim=1, descending=True, stable=True)
    items = torch.full((len(scores), k), -1, dtype=torch.int64, device=scores.device)
    padded = torch.full((len(scores), k), float("-inf"), dtype=scores.dtype, device=scores.device)
    padded[:, :found] = order.values
    items[:, :found] = torch.where(order.values.isinf(), -1, columns.gather(1, order.indices))
    return items, padded
