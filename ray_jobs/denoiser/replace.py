"""Replacements for items that a language model suggests, grounded in the catalogue."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ray_jobs.denoiser.detect import device_of, pad_left
from ray_jobs.denoiser.tuning_data import ANSWER_CLOSE, Writer


@dataclass(frozen=True)
class Replacement:
    """One suggestion.

    Args:
        item: catalogue index.
        generated: the title that the model generated.
        grounded: it was no available title, so `item` is the nearest one.
    """

    item: int
    generated: str
    grounded: bool


class TitleTable:
    """The model's states at the last token of every catalogue title, float[N, D]."""

    def __init__(self, model: nn.Module, writer: Writer) -> None:
        self._model, self._writer = model, writer
        self.states = self.encode(writer.title_ids)
        self._by_title: dict[str, list[int]] = {}
        for item, title in enumerate(writer.titles):
            self._by_title.setdefault(title, []).append(item)

    @torch.no_grad()
    def encode(self, titles: Sequence[Sequence[int]]) -> Tensor:
        """Last-token states float[n, D] of tokenized titles, each without context."""
        device, size = device_of(self._model), 8 * self._writer.settings.scoring_batch_size
        states = []
        for start in range(0, len(titles), size):
            rows = [self._writer.start + list(title) or [self._writer.pad] for title in titles[start : start + size]]
            ids, mask = (tensor.to(device) for tensor in pad_left(rows, self._writer.pad))
            places = (mask.cumsum(1) - 1).clamp(min=0)
            out = self._model(input_ids=ids, attention_mask=mask, position_ids=places, output_hidden_states=True)
            states.append(out.hidden_states[-1][:, -1].float())
        return torch.cat(states)

    def ground(self, generated: str, ids: Sequence[int], taken: Collection[int]) -> Replacement:
        """The item with the title `generated` (tokens `ids`), else the one whose title's state is nearest by L2.

        Items in `taken` are left out.
        """
        assert len(set(taken)) < len(self.states), "a user has every item of the catalogue"
        for item in self._by_title.get(generated, ()):
            if item not in taken:
                return Replacement(item, generated, grounded=False)
        distances = torch.cdist(self.encode([ids]), self.states)[0]
        distances[sorted(taken)] = torch.inf
        return Replacement(int(distances.argmin()), generated, grounded=True)


@torch.no_grad()
def replacements(
    model: nn.Module,
    writer: Writer,
    table: TitleTable,
    wanted: Sequence[tuple[Sequence[int], int]],
    taken: Sequence[Collection[int]],
) -> list[Replacement]:
    """Suggest replacements for listed items, by greedy decoding.

    Args:
        wanted: (items of the list, position to replace) pairs.
        taken: per pair the items of the user, which are never suggested.
    """
    model.eval()
    longest = max(len(title) for title in writer.title_ids) + 1
    size = writer.settings.scoring_batch_size
    stops = [*writer.answer_close[:1], *writer.end]
    answers: list[Replacement] = []
    for start in range(0, len(wanted), size):
        prompts = [
            [*writer.prompt(items), *writer.title_ids[items[position]], *writer.answer_middle]
            for items, position in wanted[start : start + size]
        ]
        for row, ids in enumerate(_greedy(model, prompts, longest, stops, writer.pad)):
            text = str(writer.tokenizer.decode(ids)).split(ANSWER_CLOSE)[0].strip()
            answers.append(table.ground(text, ids, taken[start + row]))
    return answers


def _greedy(
    model: nn.Module, prompts: Sequence[Sequence[int]], longest: int, stops: Sequence[int], pad: int
) -> list[list[int]]:
    """The greedy continuation of each prompt, up to the first of `stops`."""
    device = device_of(model)
    ids, mask = (tensor.to(device) for tensor in pad_left(prompts, pad))
    generate: Any = model.generate
    out = generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=longest,
        do_sample=False,
        eos_token_id=list(stops),
        pad_token_id=pad,
    )
    written = []
    for row in out[:, ids.shape[1] :].tolist():
        end = next((place for place, token in enumerate(row) if token in stops), len(row))
        written.append(row[:end])
    return written
