"""A fitted tokenizer as a folder, for later runs to assign codes to new items.

``quantiser.safetensors``, ``fusion.safetensors`` if more than texts is coded, ``seal.json`` (digests of the others,
checked before reading) and ``tokenizer.json`` (recipe, settings, encoder), which is written last: a folder without it
is empty.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from safetensors.numpy import load_file, save_file

from infra import storage
from infra.settings import Settings
from infra.state import named
from ray_jobs.recipes import recipe_class, settings_class
from ray_jobs.tokenizers.alignment import Aligned
from ray_jobs.tokenizers.base import Quantiser
from ray_jobs.tokenizers.fusion import Fusion, Joined
from schemas.artifact_seal import read_description, write_description

_DESCRIPTION = "tokenizer.json"
_TENSORS = "quantiser.safetensors"
_FUSION = "fusion.safetensors"
_REMEDY = "bring the folder back from a copy, or fit the tokenizer again (--generation)"


@dataclass(frozen=True, kw_only=True)
class StoredTokenizer:
    """A fitted tokenizer.

    Args:
        recipe: its name.
        settings: of the recipe.
        encoder: name of the encoder of its vectors.
        quantised_levels: as in `ray_jobs.tokenizers.base.Fitted`.
        quantiser: None for a recipe that reads no vectors.
        fusion: how collaborative vectors are coded, too; None for texts alone.
        teacher: whose collaborative vectors they are.
    """

    recipe: str
    settings: Any
    encoder: str
    quantised_levels: int
    quantiser: Quantiser | None
    fusion: Fusion | None = None
    teacher: str = ""

    @property
    def collaborative(self) -> str:
        """Value of ``semantic_ids.collaborative`` that it was fitted with."""
        return "none" if self.fusion is None else self.fusion.kind


def address_of(settings: Settings, version: str) -> str:
    """Where the tokenizer of a codebook version is stored."""
    return settings.shared("codebooks", version)


def save(address: str, stored: StoredTokenizer) -> None:
    """Write `stored` at `address`, replacing what is there."""
    with storage.new_folder(address, _DESCRIPTION) as folder:
        _save(folder, stored)


def _save(folder: Path, stored: StoredTokenizer) -> None:
    for part, file in ((stored.quantiser, _TENSORS), (stored.fusion, _FUSION)):
        if part is not None:
            tensors = {name: np.ascontiguousarray(value) for name, value in part.tensors().items()}
            save_file(tensors, folder / file)
    content = {
        "recipe": stored.recipe,
        "settings": dataclasses.asdict(stored.settings),
        "encoder": stored.encoder,
        "quantised_levels": stored.quantised_levels,
        "quantiser": stored.quantiser is not None,
        **({} if stored.fusion is None else {"collaborative": stored.collaborative, "teacher": stored.teacher}),
    }
    write_description(folder / _DESCRIPTION, content)


def load(address: str) -> StoredTokenizer | None:
    """The tokenizer at `address`; None if there is none.

    Raises:
        DataError: it is damaged, or has another format.
        DamagedFile: a file of a tokenizer without a seal is truncated.
    """
    if not storage.exists(storage.join(address, _DESCRIPTION)):
        return None
    with storage.local_copy(address) as folder:
        return _load(folder)


def _load(folder: Path) -> StoredTokenizer:
    content = read_description(folder / _DESCRIPTION, _REMEDY, "fit the tokenizer again (--generation)")
    kind = recipe_class(content["recipe"], "tokenizer")
    settings = TypeAdapter(settings_class(content["recipe"], "tokenizer")).validate_python(content["settings"])
    with named(folder / _TENSORS, _REMEDY):
        quantiser = kind(settings).restore(load_file(folder / _TENSORS)) if content["quantiser"] else None
    fusion: Fusion | None = None
    if how := content.get("collaborative"):
        with named(folder / _FUSION, _REMEDY):
            tensors = load_file(folder / _FUSION)
        fusion = Aligned(tensors) if how == "fused" else Joined(how, **tensors)
    return StoredTokenizer(
        recipe=content["recipe"],
        settings=settings,
        encoder=content["encoder"],
        quantised_levels=content["quantised_levels"],
        quantiser=quantiser,
        fusion=fusion,
        teacher=content.get("teacher", ""),
    )
