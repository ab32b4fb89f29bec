"""The recipes that can be asked for by name: the one registry that the orchestrator and the Ray jobs read."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """A method that fills a stage.

    Args:
        implementation: ``module:class`` below the stage's folder in `ray_jobs`, imported by the Ray jobs only.
        summary: a line for people.
        needs_codes: the recommender generates semantic ids, so item vectors and a codebook come first.
    """

    implementation: str
    summary: str
    needs_codes: bool = False


TOKENIZERS = {
    "rqvae": Recipe("rqvae:RQVAETokenizer", "residual-quantised autoencoder over item vectors"),
    "itemindex": Recipe("itemindex:ItemIndex", "numbers or paths of categories or of co-occurrence, nothing learned"),
    "rqkmeans": Recipe("rqkmeans:RQKMeansTokenizer", "residual k-means over item vectors"),
    "balanced_kmeans": Recipe("balanced_kmeans:BalancedKMeansTokenizer", "residual k-means, codes used equally often"),
    "fsq": Recipe("fsq:FSQTokenizer", "finite scalar quantisation of item vectors, no codebook to learn"),
}

RECOMMENDERS = {
    "mendertok": Recipe("mendertok:MenderTok", "text encoder over preference and titles, codes out", needs_codes=True),
    "menderemb": Recipe("menderemb:MenderEmb", "vectors of preference and titles, codes out", needs_codes=True),
    "tiger": Recipe("tiger:Tiger", "encoder-decoder over semantic ids, no text", needs_codes=True),
    "sasrec": Recipe("sasrec:SASRec", "causal self-attention over item ids, the baseline"),
    "bert4rec": Recipe("bert4rec:BERT4Rec", "bidirectional self-attention over item ids that fills in masked items"),
    "hstu": Recipe("hstu:HSTU", "pointwise gated attention over item ids and times"),
    "popularity": Recipe("popularity:Popularity", "counts of the training positions"),
}
