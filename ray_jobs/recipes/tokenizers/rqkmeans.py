"""Residual k-means: k-means on the vectors, then on the residuals, and so on, one code per level.

The alternative to RQ-VAE in MiniOneRec (Kong et al. 2025) and others: only centres are learned, so a fit takes seconds
and codes do not collapse. PCA and standardisation are our options, off by default.
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

from ray_jobs.tokenizers.base import Codes
from ray_jobs.tokenizers.kmeans import nearest
from ray_jobs.tokenizers.residual import ResidualTokenizer, level_centres
from ray_jobs.tokenizers.vectors import Floats, Mask, Vectors, sampled_rows, take


class RQKMeansTokenizer(ResidualTokenizer):
    """The recipe ``rqkmeans``."""

    name: ClassVar[str] = "rqkmeans"

    def fit_level(self, residuals: Vectors, training: Mask, seed: int) -> tuple[Floats, Callable[[Floats], Codes]]:
        """See `ResidualTokenizer.fit_level`; an item gets its nearest centre.

        Streamed vectors: centres of a uniform sample, refined by mini-batch k-means (Sculley 2010).
        """
        settings = self.settings
        size = settings.codebook_size * settings.sample_per_code
        centres = level_centres(take(residuals, sampled_rows(training, size, seed)), settings, seed)
        if residuals.streamed:
            from sklearn.cluster import MiniBatchKMeans

            learned = MiniBatchKMeans(
                len(centres), init=centres, n_init=1, reassignment_ratio=0.0, random_state=seed % 2**32
            )
            for _ in range(settings.passes):
                for _, block in residuals.blocks(training):
                    learned.partial_fit(block)
            centres = learned.cluster_centers_.astype("float32")
        return centres, partial(nearest, centres=centres)
