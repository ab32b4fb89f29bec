"""Scores of listed titles as noise, the model's uncertainty, and the positions to edit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ray_jobs.denoiser.settings import DenoiserSettings
from ray_jobs.denoiser.tuning_data import Writer

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Suspicion:
    """Log-probabilities of the titles of one list as the noise item, float64[K] each.

    Args:
        mean: mean per token of the title.
        total: of the whole title.
        first: of the title's first token.
    """

    mean: Floats
    total: Floats
    first: Floats

    def scores(self, settings: DenoiserSettings) -> Floats:
        """Scores for ranking positions; high is suspect."""
        return self.first if settings.score == "first_token" else self.mean

    @property
    def uncertainty(self) -> float:
        """Normalised entropy of the titles' probabilities: 0 is certain, 1 is a uniform guess.

        These are the model's own answer distribution and need no further pass, unlike shuffled orders of the history.
        """
        if len(self.total) < 2:
            return 0.0
        logs = self.total - np.logaddexp.reduce(self.total)
        return float(-(np.exp(logs) * logs).sum() / np.log(len(logs)))


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters."""
    return next(model.parameters()).device


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """`rows` and their mask, int64[B, T] each, padded on the left."""
    ids = [torch.tensor(row) for row in rows]
    mask = [torch.ones_like(row) for row in ids]
    return pad_sequence(ids, True, pad, "left"), pad_sequence(mask, True, 0, "left")


def suspicions(model: nn.Module, writer: Writer, lists: Sequence[Sequence[int]]) -> list[Suspicion]:
    """Score every item of every list (catalogue indices, oldest first).

    The prompt of a list is computed once and shared by its titles.
    """
    model.eval()
    size = writer.settings.scoring_batch_size
    order = sorted(range(len(lists)), key=lambda row: len(writer.prompt(lists[row])))
    found: dict[int, Suspicion] = {}
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        found.update(zip(rows, _scored(model, writer, [lists[row] for row in rows]), strict=True))
    return [found[row] for row in range(len(lists))]


@torch.no_grad()
def _scored(model: nn.Module, writer: Writer, lists: Sequence[Sequence[int]]) -> list[Suspicion]:
    device = device_of(model)
    ids, mask = (tensor.to(device) for tensor in pad_left([writer.prompt(items) for items in lists], writer.pad))
    places = (mask.cumsum(1) - 1).clamp(min=0)
    begun = model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=True)
    owner = torch.tensor([row for row, items in enumerate(lists) for _ in items], device=device)
    titles = [torch.tensor(writer.title_ids[item], device=device) for items in lists for item in items]
    labels = pad_sequence(titles, True, writer.pad)  # [titles, T]
    real = pad_sequence([torch.ones_like(title) for title in titles], True)
    first = begun.logits[:, -1].float().log_softmax(-1)[owner]
    logs = [first.gather(1, labels[:, :1])]
    if labels.shape[1] > 1:
        cache = begun.past_key_values
        cache.batch_select_indices(owner)
        rest = model(
            input_ids=labels[:, :-1],
            attention_mask=torch.cat([mask[owner], real[:, :-1]], dim=1),
            position_ids=places[owner, -1:] + torch.arange(1, labels.shape[1], device=device),
            past_key_values=cache,
        )
        logs.append(rest.logits.float().log_softmax(-1).gather(2, labels[:, 1:, None]).squeeze(2))
    table = (torch.cat(logs, dim=1) * real).double().cpu().numpy()
    counts = real.sum(1).cpu().numpy()
    ends = np.cumsum([len(items) for items in lists])[:-1]
    totals, initials = np.split(table.sum(1), ends), np.split(table[:, 0], ends)
    return [Suspicion(t / n, t, i) for t, n, i in zip(totals, np.split(counts, ends), initials, strict=True)]


def edits(found: Sequence[Suspicion], settings: DenoiserSettings) -> list[list[int]]:
    """Positions to edit in each list of a split, most suspect first.

    At most `max_edits` positions per list, whose scores exceed the percentile of all scores of the split; none if the
    uncertainty exceeds `max_uncertainty`.
    """
    if not found:
        return []
    threshold = np.quantile(np.concatenate([one.scores(settings) for one in found]), settings.threshold_percentile)
    chosen: list[list[int]] = []
    for one in found:
        scores = one.scores(settings)
        ranked = [int(k) for k in np.argsort(-scores, kind="stable") if scores[k] > threshold]
        chosen.append(ranked[: settings.max_edits] if one.uncertainty <= settings.max_uncertainty else [])
    return chosen
