"""Compiled search for single requests, as an interactive server gets them.

For a batch of one the overhead of calling an operation exceeds its work; compiled, encoder and beam search are one call
instead of several hundred. The compiled code has fixed shapes, so a history is padded to its full length, and the
excluded items to the next power of two.
"""

import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from infra.errors import SettingError
from ray_jobs.data.batches import Batch
from schemas.columns import PAD

COMPILERS = ("g++", "clang++")
Search = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


class CompiledSearch:
    """A search for one history, compiled on first use, which takes half a minute per width of the excluded items.

    Args:
        search: maps history int64[1, `length`], lengths int64[1] and excluded items int64[1, E] or None to items and
            scores, without Python control flow that depends on their values.
        setting: name of the setting that enables the search, for the message.

    Raises:
        SettingError: there is no C++ compiler.
    """

    def __init__(self, search: Search, length: int, setting: str) -> None:
        wanted = (os.environ["CXX"],) if os.environ.get("CXX") else COMPILERS
        if not any(map(shutil.which, wanted)):
            raise SettingError(f"{setting} needs a C++ compiler, and there is no {' or '.join(wanted)}: install one")
        self._length = length
        self._search = torch.compile(search, dynamic=False, options={"cpp_wrapper": True})

    def __call__(self, batch: Batch, exclude: Tensor | None) -> tuple[Tensor, Tensor]:
        """The result of the search for a batch of one."""
        history = functional.pad(batch.history, (0, self._length - batch.history.shape[1]), value=PAD)
        if exclude is not None:
            width = 1 << (max(self._length, exclude.shape[1]) - 1).bit_length()
            exclude = functional.pad(exclude, (0, width - exclude.shape[1]), value=PAD)
        return self._search(history, batch.lengths, exclude)
