"""The recipes that can be asked for by name: the one registry that the orchestrator and the Ray jobs read."""

from dataclasses import dataclass

from schemas.dataset import Dataset


@dataclass(frozen=True)
class Recipe:
    """A method that fills a stage.

    Args:
        implementation: ``module:class`` below `ray_jobs.recipes`, imported by the Ray jobs only.
        settings: ``module:class`` of its settings in the same folder; that module loads no engine.
        summary: a line for people.
        needs_codes: the recommender generates semantic ids, so item vectors and a codebook come first.
        needs_ratings: it learns from stars, which data sets of clicks or purchases do not have.
    """

    implementation: str
    settings: str
    summary: str
    needs_codes: bool = False
    needs_ratings: bool = False


TOKENIZERS = {
    "rqvae": Recipe(
        "tokenizers.rqvae:RQVAETokenizer",
        "tokenizers.settings:RQVAESettings",
        "residual-quantised autoencoder over item vectors",
    ),
    "itemindex": Recipe(
        "tokenizers.itemindex:ItemIndex",
        "tokenizers.settings:ItemIndexSettings",
        "numbers or paths of categories or of co-occurrence, nothing learned",
    ),
    "rqkmeans": Recipe(
        "tokenizers.rqkmeans:RQKMeansTokenizer",
        "tokenizers.settings:RQKMeansSettings",
        "residual k-means over item vectors",
    ),
    "balanced_kmeans": Recipe(
        "tokenizers.balanced_kmeans:BalancedKMeansTokenizer",
        "tokenizers.settings:BalancedKMeansSettings",
        "residual k-means, codes used equally often",
    ),
    "fsq": Recipe(
        "tokenizers.fsq:FSQTokenizer",
        "tokenizers.settings:FSQSettings",
        "finite scalar quantisation of item vectors, no codebook to learn",
    ),
}

RECOMMENDERS = {
    "mendertok": Recipe(
        "generative.mendertok:MenderTok",
        "generative.settings:MenderTokSettings",
        "text encoder over preference and titles, codes out",
        needs_codes=True,
    ),
    "menderemb": Recipe(
        "generative.menderemb:MenderEmb",
        "generative.settings:MenderEmbSettings",
        "vectors of preference and titles, codes out",
        needs_codes=True,
    ),
    "tiger": Recipe(
        "generative.tiger:Tiger",
        "generative.settings:TigerSettings",
        "encoder-decoder over semantic ids, no text",
        needs_codes=True,
    ),
    "sasrec": Recipe(
        "sequential.sasrec:SASRec",
        "sequential.settings:SASRecSettings",
        "causal self-attention over item ids, the baseline",
    ),
    "bert4rec": Recipe(
        "sequential.bert4rec:BERT4Rec",
        "sequential.settings:BERT4RecSettings",
        "bidirectional self-attention over item ids that fills in masked items",
    ),
    "hstu": Recipe(
        "sequential.hstu:HSTU", "sequential.settings:HSTUSettings", "pointwise gated attention over item ids and times"
    ),
    "popularity": Recipe(
        "sequential.popularity:Popularity", "sequential.settings:PopularitySettings", "counts of the training positions"
    ),
}


def require_ratings(recommender: str, dataset: Dataset | None) -> None:
    """Refuse a recommender that learns from ratings for a data set that is registered without.

    Raises:
        DataError: so.
    """
    if dataset and RECOMMENDERS[recommender].needs_ratings:
        free = ", ".join(sorted(name for name, recipe in RECOMMENDERS.items() if not recipe.needs_ratings))
        dataset.require_ratings(f"the recipe {recommender}", f"take one of {free}")
