"""Text and collaborative vectors in one space: the first stage of ProRec, a progressive fusion.

If text vectors stand beside collaborative ones, codes follow the texts: they are wider, and easier to quantise. An
adapter brings them to the width of the others: a linear map and a layer norm whose scale and shift are read from the
text, too. A sequential recommender goes on learning from the teacher's vectors while a contrastive loss, in both
directions, pulls each item's two vectors together; its own loss keeps them from becoming texts. An item that nobody has
met gets its adapted text vector in both places.

No official code of the method was found. That the recommender reads the collaborative vectors alone and starts from a
teacher is our choice, as are SASRec and its sizes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from infra.errors import SettingError
from infra.settings import RaySettings
from ray_jobs import cluster
from ray_jobs.data.batches import Batch, InMemoryExamples
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import Examples, training_examples
from ray_jobs.data.histories import Histories
from ray_jobs.objectives.contrastive import info_nce
from ray_jobs.recipes.sequential.sasrec import SASRec
from ray_jobs.tokenizers.fusion import Parts, has_one, unit
from ray_jobs.tokenizers.settings import ALIGNMENT, AlignmentSettings
from ray_jobs.tokenizers.vectors import Floats
from ray_jobs.training.ray_train import train
from ray_jobs.training.trainable import Notify, silent

_AT_ONCE = 65_536


class Adapter(nn.Module):
    """Text vectors in the space of collaborative ones."""

    def __init__(self, texts: int, width: int) -> None:
        super().__init__()
        self.map, self.modulation = nn.Linear(texts, width), nn.Linear(texts, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, texts: Tensor) -> Tensor:
        """Vectors float[..., d] of text vectors float[..., D]."""
        scale, shift = self.modulation(texts).chunk(2, dim=-1)
        x = self.map(texts)
        out: Tensor = functional.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
        return out


@dataclass(frozen=True, eq=False)
class Aligned:
    """A trained adapter, as `ray_jobs.tokenizers.fusion.Fusion`."""

    adapter: Mapping[str, Floats]
    kind: str = field(default="fused", init=False)

    def parts(self, texts: Floats, known: Floats) -> Parts:
        """See `Fusion.parts`; `known` are aligned collaborative vectors."""
        width, wide = self.adapter["map.weight"].shape
        adapter = Adapter(wide, width)
        adapter.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in self.adapter.items()})
        blocks = (texts[at : at + _AT_ONCE] for at in range(0, len(texts), _AT_ONCE))
        with torch.no_grad():
            adapted = [adapter(torch.from_numpy(block.copy())) for block in blocks]
        text = unit(torch.cat(adapted).numpy())
        return np.where(has_one(known)[:, None], unit(known), text), text

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """See `Fusion.tensors`."""
        return dict(self.adapter)


class AlignedSASRec(SASRec):
    """SASRec whose item vectors are pulled towards the adapted vectors of their texts."""

    name = "sasrec"

    texts: Tensor

    def __init__(self, own: AlignmentSettings, catalogue: Catalogue, texts: Floats, start: Floats) -> None:
        super().__init__(own.recipe(start.shape[1]), catalogue)
        self.own = own
        self.adapter = Adapter(texts.shape[1], start.shape[1])
        self.register_buffer("texts", torch.from_numpy(texts.copy()), persistent=False)
        with torch.no_grad():
            self.items.weight[1:] = torch.from_numpy(start.copy())
            # Texts have much in common, which says nothing.
            self.adapter.map.bias.copy_(-self.adapter.map.weight @ self.texts.mean(0))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of the next item, and that between both vectors of the items in the batch."""
        found = super().loss(batch)
        items = torch.cat([batch.history.flatten(), batch.targets]).unique()
        contrast = self.contrast(items[items >= 0])
        return {**found, "loss": found["loss"] + self.own.contrast_weight * contrast, "contrast": contrast}

    def contrast(self, items: Tensor) -> Tensor:
        """Mean loss of finding an item's text by its collaborative vector and the reverse, among int64[M] items."""
        collaborative = functional.normalize(self.items(items + 1), dim=-1)
        text = functional.normalize(self.adapter(self.texts[items]), dim=-1)
        rate = self.own.contrast_temperature
        return (info_nce(collaborative, text, rate) + info_nce(text, collaborative, rate)) / 2


@dataclass(frozen=True)
class AlignmentPlan:
    """The training of the alignment of M items, as `ray_jobs.training.ray_train.TrainingPlan`.

    Args:
        texts, start: text vectors float32[M, D], and the teacher's float32[M, d].
    """

    own: AlignmentSettings
    catalogue: Catalogue
    examples: Examples
    texts: Floats
    start: Floats

    def __len__(self) -> int:
        """Number of training examples."""
        return len(self.examples)

    def build(self) -> AlignedSASRec:
        """The module before training."""
        torch.manual_seed(self.own.seed)
        return AlignedSASRec(self.own, self.catalogue, self.texts, self.start)

    def sources(self, trainable: AlignedSASRec, notify: Notify = silent) -> tuple[InMemoryExamples, None]:  # noqa: ARG002
        """Training batches; there is no evaluation."""
        return InMemoryExamples(self.examples), None

    def fingerprint(self) -> str:
        """Hash of everything that decides the result."""
        digest = hashlib.sha256(json.dumps(asdict(self.own), sort_keys=True).encode())
        for part in (self.texts, self.start, self.examples.items, self.examples.targets):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def alignment_plan(own: AlignmentSettings, histories: Histories, texts: Floats, start: Floats) -> AlignmentPlan:
    """The plan for M items, all of them known to the teacher.

    Args:
        histories: training positions alone, in indices of these items.

    Raises:
        SettingError: the width of the teacher's vectors does not fit the heads.
    """
    if start.shape[1] % own.heads:
        raise SettingError(
            f"alignment.heads is {own.heads}, but must divide the width of the teacher's vectors, {start.shape[1]}"
        )
    names = tuple(str(item) for item in range(len(texts)))
    examples = training_examples(histories, own.max_history, every_prefix=False)
    return AlignmentPlan(own, Catalogue(names, names, names), examples, texts, start)


def aligned(state: Mapping[str, Tensor]) -> tuple[Aligned, Floats]:
    """The fusion of a trained state, and the collaborative vectors float32[M, d] of its items."""
    held = {name: tensor.float().numpy() for name, tensor in state.items()}
    adapter = {name.removeprefix("adapter."): value for name, value in held.items() if name.startswith("adapter.")}
    return Aligned(adapter), held["items.weight"][1:]


def align(plan: AlignmentPlan, ray: RaySettings, run_name: str, home: str, stage: str) -> tuple[Aligned, Floats]:
    """`aligned` after training on Ray Train, beside the run `run_name` of the tokenizer."""
    cluster.connect()
    outcome = train(plan, ray, run_name=run_name + ALIGNMENT, home=home, stage=stage, fingerprint=plan.fingerprint())
    return aligned(outcome.state.trained)
