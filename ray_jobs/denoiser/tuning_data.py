"""Windows as token sequences: the instruction with the listed titles, and the expected answer.

Every title is tokenized separately, so that its tokens are the same in the list, in the answer and in scoring, and its
boundaries are known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
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
    """A title for use between quotes: at most `max_words` words, single spaces, typographic apostrophes."""
    return " ".join(title.split()[:max_words]).replace("'", "\N{RIGHT SINGLE QUOTATION MARK}")


@dataclass(frozen=True)
class Example:
    """One tokenized text.

    Args:
        ids: its tokens.
        loss_from: index of the first token with loss; all later ones have it, too.
    """

    ids: tuple[int, ...]
    loss_from: int


class Writer:
    """Turns windows of a catalogue into tokens of a language model.

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
        # Padding is always masked, so any token will do if the tokenizer has no padding token.
        self.pad = int(tokenizer.pad_token_id or 0)

    def _ids(self, text: str) -> list[int]:
        return [int(token) for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]]

    def prompt(self, items: Sequence[int]) -> list[int]:
        """Tokens of the instruction, the titles of `items` and the beginning of the answer up to its first quote."""
        return [*self.list_open, *self._listed(items), *self.answer_open]

    def answer(self, noise: int, replacement: int) -> list[int]:
        """Tokens of the answer after `prompt`."""
        return [*self._listed([noise]), *self._suggestion(replacement)]

    def _listed(self, items: Sequence[int]) -> list[int]:
        ids: list[int] = []
        for number, item in enumerate(items):
            ids += [*(self.between if number else ()), *self.title_ids[item]]
        return ids

    def _suggestion(self, item: int) -> list[int]:
        return [*self.answer_middle, *self.title_ids[item], *self.answer_close, *self.end]

    def tuning_examples(self, windows: Sequence[Window]) -> list[Example]:
        """Training examples of the tuning; the opening words of the answer belong to the prompt.

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
        """Training examples of a tiny base: real histories with uninformative answers.

        A random subset of each window's real events is listed in order. The answer names all of them in random order
        and suggests an item of any window. So the base learns the titles, their co-occurrence and the form of an
        answer, but not which title to name.
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
        labels: int64[B, T]; `NO_LOSS` for tokens without loss.
        of: number of examples of the whole batch that these are a part of.
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
    """`examples` as one batch, or as part of a batch of `of` examples."""
    ids = [torch.tensor(example.ids) for example in examples]
    labels = [row.clone() for row in ids]
    for row, example in zip(labels, examples, strict=True):
        row[: example.loss_from] = NO_LOSS
    mask = pad_sequence([torch.ones_like(row) for row in ids], True)
    return Batch(pad_sequence(ids, True, pad), mask, pad_sequence(labels, True, NO_LOSS), of or len(examples))


def step_rows(count: int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> Iterator[list[int]]:
    """Rows of one worker for each optimiser step of an epoch, in an order that depends on `seed`.

    A step has `batch_size` rows over all workers, the last one fewer. All workers get the same number of rows; fewer
    than `world` rows at the end are dropped.
    """
    order = np.random.default_rng(seed).permutation(count)[: count // world * world]
    for start in range(0, len(order), batch_size // world * world):
        step = order[start : start + batch_size // world * world]
        yield [int(row) for row in step[rank::world]]
