"""From the frozen vectors of item texts to vectors of a model's width.

Without whitening, a few directions that all texts share drown what tells items apart (Zhang et al., 2024); on Beauty, a
model that reads texts alone then ranks a tenth lower.
"""

import torch
from torch import Tensor, nn

from ray_jobs.training.linear import Linear


def text_network(size: int, hidden: int, width: int) -> nn.Sequential:
    """Maps whitened text vectors float[..., size] to float[..., width].

    Before training it returns 0, so that an untrained part does not affect the ranking.
    """
    last = Linear(hidden, width, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(Linear(size, hidden), nn.GELU(), last)


def whitened(vectors: Tensor) -> Tensor:
    """float[N, D] brought to mean 0 and, if N is much above D, to the unit matrix as covariance (ZCA)."""
    mean, scaled, axes = whitening(vectors)
    return ((vectors - mean).double() @ scaled @ axes).float()


def whitening(vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean float[D] of vectors float[N, D], and the two factors float64[D, D] that whiten the rest.

    The covariance is shrunk (Ledoit and Wolf, 2004): that of few vectors would make all of them equally far apart.
    """
    from sklearn.covariance import ledoit_wolf

    mean = vectors.mean(dim=0)
    covariance, _ = ledoit_wolf((vectors - mean).double().cpu().numpy(), assume_centered=True)
    variances, axes = torch.linalg.eigh(torch.from_numpy(covariance).to(vectors.device))
    return mean, axes / variances.clamp(min=1e-12).sqrt(), axes.T
