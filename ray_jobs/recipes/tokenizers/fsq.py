"""Finite scalar quantisation (Mentzer et al. 2024): a few bounded numbers, each rounded to a few values.

A code is a cell of a fixed grid, so there is no codebook to learn or to collapse.

``form="product"`` is the tokenizer of RecGPT (2025): the vector is cut into chunks of equal width, each projected to
the dimensions of `grid`, rounded and projected back; a small Transformer reads the chunks with positions, and its last
state reconstructs the vector. ``form="residual"`` quantises one latent vector with a grid that becomes finer from level
to level, so the first codes are the coarse ones. Both minimise the absolute error of reconstruction. Our addition:
inputs are standardised with the training items.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from vector_quantize_pytorch import FSQ, ResidualFSQ

from infra.errors import SettingError
from ray_jobs.recipes.tokenizers.settings import FSQSettings
from ray_jobs.tokenizers.autoencoder import Autoencoder, AutoencoderTokenizer
from ray_jobs.training.linear import perceptron


class _GridAutoencoder(Autoencoder):
    """Base of both forms: the loss, and codes as cells of a grid."""

    def __init__(self, settings: FSQSettings) -> None:
        super().__init__(settings)
        self.level_sizes = (math.prod(settings.grid),) * settings.levels

    def quantised(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Input of `decoded`, with straight-through gradients, and codes int32[B, L], of vectors float[B, D]."""
        raise NotImplementedError

    def decoded(self, quantised: Tensor) -> Tensor:
        """Reconstructions float[B, D]."""
        raise NotImplementedError

    def loss(self, batch: Tensor) -> dict[str, Tensor]:
        """Mean absolute error of reconstruction of vectors float[B, D]."""
        return {"loss": functional.l1_loss(self.decoded(self.quantised(batch)[0]), batch)}

    def quantise_batch(self, vectors: Tensor) -> Tensor:
        """See `Autoencoder.quantise`."""
        return self.quantised(vectors)[1].long()


class ProductFSQ(_GridAutoencoder):
    """One grid for all chunks, and a Transformer over the chunks as the decoder."""

    def __init__(self, width: int, settings: FSQSettings) -> None:
        super().__init__(settings)
        chunk, rest = divmod(width, settings.levels)
        if rest or chunk % settings.decoder_heads:
            raise SettingError(
                f"vectors of {width} dimensions cannot be cut into fsq.levels={settings.levels} equal chunks whose "
                f"width fsq.decoder_heads={settings.decoder_heads} divides: choose other numbers, or fsq.form=residual"
            )
        self.chunks = settings.levels
        self.grid = FSQ(list(settings.grid), dim=chunk)
        self.positions = nn.Parameter(torch.randn(settings.levels, chunk) * 0.02)
        layer = nn.TransformerEncoderLayer(
            chunk, settings.decoder_heads, 4 * chunk, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerEncoder(layer, settings.decoder_layers, enable_nested_tensor=False)
        self.head = perceptron((chunk, 4 * chunk, width))

    def quantised(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Chunks float[B, L, D / L] and codes; see the base class."""
        chunks, codes = self.grid(vectors.unflatten(1, (self.chunks, -1)))
        return chunks, codes

    def decoded(self, quantised: Tensor) -> Tensor:
        """See the base class."""
        states: Tensor = self.decoder(quantised + self.positions)
        vectors: Tensor = self.head(states[:, -1])
        return vectors

    def reconstruct_batch(self, codes: Tensor) -> Tensor:
        """See `Autoencoder.reconstruct`."""
        return self.decoded(self.grid.indices_to_codes(codes))


class ResidualFSQAutoencoder(_GridAutoencoder):
    """A perceptron to a latent vector, residual grids, and a perceptron back."""

    def __init__(self, width: int, settings: FSQSettings) -> None:
        super().__init__(settings)
        widths = (width, *settings.hidden, len(settings.grid))
        self.encoder = perceptron(widths)
        self.decoder = perceptron(widths[::-1])
        self.grids = ResidualFSQ(levels=list(settings.grid), num_quantizers=settings.levels, dim=len(settings.grid))

    def quantised(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Latent vectors float[B, P] and codes; see the base class."""
        latent, codes = self.grids(self.encoder(vectors).unsqueeze(1))
        return latent.squeeze(1), codes.squeeze(1)

    def decoded(self, quantised: Tensor) -> Tensor:
        """See the base class."""
        vectors: Tensor = self.decoder(quantised)
        return vectors

    def reconstruct_batch(self, codes: Tensor) -> Tensor:
        """See `Autoencoder.reconstruct`."""
        return self.decoded(self.grids.get_output_from_indices(codes.unsqueeze(1)).squeeze(1))


class FSQTokenizer(AutoencoderTokenizer):
    """The recipe ``fsq``."""

    name: ClassVar[str] = "fsq"
    settings: FSQSettings

    def build(self, width: int) -> Autoencoder:
        """See `AutoencoderTokenizer.build`."""
        kind = ProductFSQ if self.settings.form == "product" else ResidualFSQAutoencoder
        return kind(width, self.settings)
