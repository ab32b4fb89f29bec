"""Windows as token sequences: the instruction with the listed titles, and the answer that a model is tuned to give.

Every title is tokenized on its own, wherever it stands. So its tokens are the same in the list, in the answer and when
it is scored, and where a title begins and ends is known to the token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from infra.errors import SettingError
from ray_jobs.denoiser.settings import SECTION, DenoiserSettings
from ray_jobs.denoiser.windows import Window

INSTRUCTION = (
    "Below are titles that a customer chose, oldest first. Find the items that break the dominant interest, then "
    "propose replacements."
)
LIST_OPEN = f"{INSTRUCTION}\nTitles: '"
BETWEEN = "', '"
ANSWER_OPEN = "'\nNoise Items: '"
ANSWER_MIDDLE = "'\nSuggested Replacements: '"
ANSWER_CLOSE = "'"
NO_LOSS = -100


def quotable(title: str, max_words: int) -> str:
    """A title as it stands between quotes: blanks made one, words cut, apostrophes made typographic."""
    return " ".join(title.split()[:max_words]).replace("'", "\N{RIGHT SINGLE QUOTATION MARK}")


@dataclass(frozen=True)
class Example:
    """One tokenized text.

    Args:
        ids: its tokens.
        loss_from: index of the first token that the loss counts; all after it count, too.
    """

    ids: tuple[int, ...]
    loss_from: int


class Writer:
    """Writes windows of one catalogue in the tokens of one language model.

    Args:
        titles: one per catalogue item.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, titles: Sequence[str], settings: DenoiserSettings) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self.titles = tuple(quotable(title, settings.max_title_words) for title in titles)
        self.title_ids = [self._ids(title) for title in self.titles]
        start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        self.list_open = [*start, *self._ids(LIST_OPEN)]
        self.between = self._ids(BETWEEN)
        self.answer_open = self._ids(ANSWER_OPEN)
        self.answer_middle = self._ids(ANSWER_MIDDLE)
        self.answer_close = self._ids(ANSWER_CLOSE)
        self.end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        self.start = start
        # Padding is always masked, so any token serves where a tokenizer has none for it.
        self.pad = int(tokenizer.pad_token_id or 0)

    def _ids(self, text: str) -> list[int]:
        return [int(token) for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]]

    def prompt(self, items: Sequence[int]) -> list[int]:
        """Tokens of the instruction, the titles of `items` and the answer's beginning up to its first quote."""
        return [*self.list_open, *self._listed(items), *self.answer_open]

    def answer(self, noise: int, replacement: int) -> list[int]:
        """Tokens of the answer behind `prompt`."""
        return [*self._listed([noise]), *self._suggestion(replacement)]

    def _listed(self, items: Sequence[int]) -> list[int]:
        ids: list[int] = []
        for number, item in enumerate(items):
            ids += [*(self.between if number else ()), *self.title_ids[item]]
        return ids

    def _suggestion(self, item: int) -> list[int]:
        return [*self.answer_middle, *self.title_ids[item], *self.answer_close, *self.end]

    def tuning_examples(self, windows: Sequence[Window]) -> list[Example]:
        """What the model is tuned on; the answer's opening words belong to the prompt.

        Raises:
            SettingError: an example is longer than ``max_tokens``.
        """
        examples = []
        for window in windows:
            prompt = self.prompt(window.items)
            ids = (*prompt, *self.answer(window.items[window.position], window.original))
            if len(ids) > self.settings.max_tokens:
                raise SettingError(
                    f"a window of {len(window.items)} titles takes {len(ids)} tokens, and {SECTION}.max_tokens is "
                    f"{self.settings.max_tokens}: lower {SECTION}.max_title_words or {SECTION}.window, or raise "
                    "max_tokens"
                )
            examples.append(Example(ids, len(prompt) if self.settings.loss_on == "answer" else 1))
        return examples

    def base_examples(self, windows: Sequence[Window]) -> list[Example]:
        """What a tiny base is pre-trained on: real histories, and the form of an answer with nothing to learn from it.

        Of each window a random part of its real events is listed, in order. The answer names all of them in random
        order, and suggests an item of any window. So the base knows the titles, their company and how to repeat what is
        listed, and nothing of which title to name.
        """
        rng = np.random.default_rng([self.settings.seed, 1])
        known = sorted({item for window in windows for item in window.clean})
        examples = []
        for window in windows:
            count = int(rng.integers(min(self.settings.shortest, len(window.items)), len(window.items) + 1))
            places = np.sort(rng.choice(len(window.items), count, replace=False))
            items = [window.clean[place] for place in places]
            named = [items[place] for place in rng.permutation(count)]
            ids = [*self.prompt(items), *self._listed(named), *self._suggestion(int(rng.choice(known)))]
            examples.append(Example(tuple(ids[: self.settings.max_tokens]), 1))
        return examples


@dataclass(frozen=True)
class Batch:
    """Examples as tensors, padded on the right.

    Args:
        ids, mask: int64[B, T].
        labels: int64[B, T]; `NO_LOSS` where a token does not count.
        of: examples of the optimiser step's batch, of which these are a part.
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    of: int

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`."""
        return Batch(self.ids.to(device), self.mask.to(device), self.labels.to(device), self.of)


def collate(examples: Sequence[Example], pad: int, of: int = 0) -> Batch:
    """`examples` as one batch, or as part of one of `of` examples."""
    length = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), length), pad)
    mask = torch.zeros(len(examples), length, dtype=torch.int64)
    labels = torch.full((len(examples), length), NO_LOSS)
    for row, example in enumerate(examples):
        tokens = torch.tensor(example.ids)
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
        labels[row, example.loss_from : len(tokens)] = tokens[example.loss_from :]
    return Batch(ids, mask, labels, of or len(examples))


def step_rows(count: int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> Iterator[list[int]]:
    """Rows of one worker for each optimiser step of an epoch, in an order that depends on `seed`.

    A step has `batch_size` rows over all workers, the last one what is left; every worker gets equally many, and less
    than `world` rows at the end are left out.
    """
    order = np.random.default_rng(seed).permutation(count)[: count // world * world]
    for start in range(0, len(order), batch_size // world * world):
        step = order[start : start + batch_size // world * world]
        yield [int(row) for row in step[rank::world]]
