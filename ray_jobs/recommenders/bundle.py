"""A trained recommender as a folder that a fresh process can load.

``recipe.json`` (recipe, settings, provenance), ``weights.safetensors`` and ``catalogue.parquet`` (ids, titles, texts,
codes, attributes, learned vectors); with a steering layer ``steering.json`` and ``terms.safetensors``; ``seal.json``
(digests of the others, checked before reading). ``recipe.json`` is written last: a folder without it is not a bundle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from infra import storage
from infra.progress import phased
from infra.state import named, read_json
from ray_jobs.data.batches import make_batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.vector_columns import lists, matrix
from ray_jobs.recipes import recipe_class, settings_class
from ray_jobs.recommenders.base import Recommender
from ray_jobs.recommenders.conditions import BoolArray
from ray_jobs.recommenders.requests import in_catalogue, items_wanted, rows, strengths
from ray_jobs.recommenders.rules import RULES, Rules
from ray_jobs.recommenders.settings import RecipeSettings
from ray_jobs.steering import layer as steering
from ray_jobs.steering.layer import RETRAIN, SteeringLayer
from schemas.artifact_seal import SEAL, check_folder, read_description, write_description
from schemas.columns import COLUMNS, HISTORY
from schemas.errors import DataError
from schemas.item_conditions import ATTRIBUTES

Address = TypeVar("Address", str, Path)

_DESCRIPTION = "recipe.json"
_VECTORS = "vectors:"
"""Prefix of the columns of `Catalogue.vectors`."""
_REMEDY = "bring the bundle back from the model registry, or remove its folder and train the model again"


@dataclass(frozen=True)
class Reasons:
    """The explanation of a recommended list.

    Args:
        because: for each item the words of its text that match the sentence.
        unmatched: phrases of the sentence that match nothing in the catalogue.
    """

    because: tuple[tuple[str, ...], ...]
    unmatched: tuple[str, ...]


@dataclass(frozen=True)
class Bundle:
    """A loaded recommender.

    Args:
        provenance: recorded in training: run identity, MLflow run id, table versions, metrics.
    """

    recommender: Recommender
    provenance: Mapping[str, Any]

    @cached_property
    def rules(self) -> Rules:
        """What may come under the rules of requests."""
        return Rules(self.catalogue)

    @property
    def recipe(self) -> str:
        """Name of the recipe."""
        return self.recommender.name

    @property
    def settings(self) -> RecipeSettings:
        """Settings of the recipe."""
        return self.recommender.settings

    @property
    def catalogue(self) -> Catalogue:
        """The items that it can recommend."""
        return self.recommender.catalogue

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        preferences: Sequence[str | None],
        k: int,
        exclude_seen: bool = True,
        known: Sequence[str | None] | None = None,
        strength: float | Sequence[float] = 1.0,
        **columns: Any,
    ) -> list[list[tuple[str, float]]]:
        """The k best items for each history.

        Args:
            histories: item ids, oldest first; unknown ids are skipped, and a history may be empty.
            preferences: the request's sentence for each history, or None. Ignored by a model without a steering layer
                whose recipe reads no preferences.
            exclude_seen: leave out the items of the full history.
            known: known preferences of each user, or None; used if there is no sentence, with the weight that was best
                on validation.
            strength: weight of the sentences: 0 none, 1 as fitted, up to `MOST_STRENGTH`.
            columns: further columns of `schemas.columns` that requests may bring, such as ``times``, a row for each
                history, or ``asked_at``, a value for each; None counts as missing. ``allow``, ``deny`` and ``where``
                are rules, see `Rules`: no other item comes, and k items do if so many are allowed.

        Returns:
            Per history up to k pairs (item id, score), best first; fewer if the catalogue has fewer left.

        Raises:
            DataError: the arguments differ in length, a value has the wrong type or is out of bounds (see `requests`),
                or the recipe needs times and there are none.
        """
        rows(histories, "histories", object)
        rows(preferences, "preferences", str, none=True)
        if len(histories) != len(preferences):
            raise DataError(f"{len(histories)} histories came with {len(preferences)} preferences; give one for each")
        factors = strengths(strength, len(histories))
        sentences = [p if factor else "" for p, factor in zip(preferences, factors, strict=True)]
        if known is not None:
            rows(known, "known", str, none=True)
            if len(known) != len(histories):
                raise DataError(f"{len(histories)} histories came with {len(known)} known; give one for each")
            weight = self.recommender.known_weight
            for row, (given, words) in enumerate(zip(preferences, known, strict=True)):
                if words and not given and weight > 0:
                    sentences[row], factors[row] = words, weight
        allowed = self.rules.allowed(len(histories), **{name: columns.pop(name, None) for name in RULES})
        columns = {HISTORY: histories, "preferences": sentences, **columns}
        found = in_catalogue(columns, self.catalogue.index, len(histories)) | {"strength": factors}
        k = items_wanted(k, len(self.catalogue))
        size = self.settings.evaluation_batch_size
        answers: list[list[tuple[str, float]]] = []
        for start in range(0, len(histories), size):
            part = {name: values[start : start + size] for name, values in found.items()}
            rule = None if allowed is None else allowed[start : start + size]
            answers.extend(self._answer(part, k, exclude_seen, rule))
        return answers

    def effective_preference(self, preference: str | None, known: str | None) -> str | None:
        """The sentence that steers a list: the request's, else the known preference if it has weight."""
        return preference or (known if self.recommender.known_weight > 0 else None)

    def truncation(self, sentence: str | None) -> str | None:
        """The message for a sentence that is too long for its encoder; None for any other."""
        if not sentence or self.recommender.sentence_encoder is None:
            return None
        encoder, most = self.recommender.sentence_encoder
        # A token has at least one byte, so short sentences need no tokenizer.
        count = 0 if len(sentence.encode()) <= most // 2 else encoder.count_tokens([sentence])[0]
        return f"{count} word pieces are more than the {most} that the model reads" if count > most else None

    def reasons(self, sentence: str | None, item_ids: Sequence[str]) -> Reasons:
        """Why `item_ids` were recommended for a sentence; empty without a steering layer."""
        layer = self.recommender.steering
        if layer is None or not sentence:
            return Reasons(((),) * len(item_ids), ())
        index = self.catalogue.index
        return Reasons(
            tuple(layer.because(sentence, index[item]) for item in item_ids), layer.match(sentence).unmatched
        )

    def _answer(
        self, given: Mapping[str, Any], k: int, exclude_seen: bool, rule: BoolArray | None
    ) -> list[list[tuple[str, float]]]:
        length, device = self.settings.max_history, self.recommender.device
        recent: dict[str, Any] = {
            name: [row[-length:] for row in values] if COLUMNS[name].along == HISTORY else values
            for name, values in given.items()
        }
        batch = make_batch(**recent).to(device)
        exclude = None
        if exclude_seen:
            seen = [list(dict.fromkeys(row.tolist())) for row in given[HISTORY]]
            exclude = make_batch(seen, [""] * len(seen)).history.to(device)
        allowed = None if rule is None else torch.from_numpy(rule).to(device)
        items, scores = self.recommender.topk(batch, k, exclude, allowed)
        return [
            [(self.catalogue.item_ids[i], s) for i, s in zip(row, row_scores, strict=True) if i >= 0]
            for row, row_scores in zip(items.tolist(), scores.tolist(), strict=True)
        ]


@phased("saving the bundle")
def save_bundle(address: Address, recommender: Recommender, provenance: Mapping[str, Any]) -> Address:
    """Write `recommender` and its catalogue into the folder at `address`, replacing what is there."""
    with storage.new_folder(str(address), _DESCRIPTION) as folder:
        _save(folder, recommender, provenance)
    return address


def _save(folder: Path, recommender: Recommender, provenance: Mapping[str, Any]) -> None:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in recommender.trained_state().items()}
    save_file(state, folder / "weights.safetensors")
    catalogue = recommender.catalogue
    codes = [None] * len(catalogue) if catalogue.codes is None else catalogue.codes.tolist()
    table = pa.table(
        {
            "item_id": pa.array(catalogue.item_ids, pa.string()),
            "title": pa.array(catalogue.titles, pa.string()),
            "text": pa.array(catalogue.texts, pa.string()),
            "codes": pa.array(codes, pa.list_(pa.int32())),
        }
    )
    if catalogue.interacted is not None:
        table = table.append_column("met", pa.array(catalogue.interacted))
    if catalogue.attributes is not None:
        for name in ATTRIBUTES:
            table = table.append_column(name, catalogue.attributes[name])
    for name, vectors in catalogue.vectors.items():
        table = table.append_column(_VECTORS + name, lists(vectors))
    pq.write_table(table, folder / "catalogue.parquet", write_page_checksum=True)
    (folder / steering.FILE).unlink(missing_ok=True)
    if recommender.steering is not None:
        recommender.steering.save(folder)
    content = {
        "recipe": recommender.name,
        "settings": recommender.settings_dict(),
        "level_sizes": list(catalogue.level_sizes),
        "provenance": dict(provenance),
    }
    write_description(folder / _DESCRIPTION, content)


def read_provenance(address: str | Path) -> dict[str, Any] | None:
    """The provenance of the bundle at `address`; None if there is no complete bundle.

    Raises:
        DataError: its description is damaged.
    """
    if not storage.exists(storage.join(str(address), _DESCRIPTION)):
        return None
    with storage.local_copy(str(address), only=(SEAL, _DESCRIPTION)) as folder:
        check_folder(folder, _REMEDY, only=(_DESCRIPTION,))
        return read_json(folder / _DESCRIPTION, RETRAIN, lambda content: dict(content["provenance"]))


def load_bundle(address: str | Path) -> Bundle:
    """Load the bundle in the folder at `address`.

    Raises:
        DataError: there is no complete bundle at `address`, it is damaged, or it has a newer format.
        DamagedFile: a file of a bundle without a seal is truncated.
    """
    if not storage.exists(storage.join(str(address), _DESCRIPTION)):
        raise DataError(f"{address} holds no complete model bundle (no {_DESCRIPTION}); run the train stage first")
    with storage.local_copy(str(address)) as folder:
        return _load(folder)


def _load(folder: Path) -> Bundle:
    content = read_description(folder / _DESCRIPTION, _REMEDY, RETRAIN)
    with named(folder / "catalogue.parquet", RETRAIN):
        table = pq.read_table(folder / "catalogue.parquet")
    codes = table.column("codes").to_pylist()
    catalogue = Catalogue(
        item_ids=tuple(table.column("item_id").to_pylist()),
        titles=tuple(table.column("title").to_pylist()),
        texts=tuple(table.column("text").to_pylist()),
        codes=np.array(codes, dtype=np.int64) if content["level_sizes"] else None,
        level_sizes=tuple(content["level_sizes"]),
        interacted=np.array(table["met"].to_pylist(), dtype=np.bool_) if "met" in table.column_names else None,
        attributes=table.select(list(ATTRIBUTES)) if set(ATTRIBUTES) <= set(table.column_names) else None,
        vectors={
            name.removeprefix(_VECTORS): matrix(table[name]) for name in table.column_names if name.startswith(_VECTORS)
        },
    )
    kind = recipe_class(content["recipe"])
    settings = TypeAdapter(settings_class(content["recipe"])).validate_python({**kind.earlier, **content["settings"]})
    recommender = kind(settings, catalogue)
    with named(folder / "weights.safetensors", RETRAIN):
        recommender.load_trained_state(load_file(folder / "weights.safetensors"))
    # Parameters only: some buffers are NaN until they are first used.
    if damaged := [name for name, weights in recommender.named_parameters() if not weights.isfinite().all()]:
        raise DataError(f"{folder / 'weights.safetensors'} has values that are no numbers, e.g. in {damaged[0]}")
    recommender.steering = SteeringLayer.load(folder)
    return Bundle(recommender.eval().requires_grad_(False), content["provenance"])
