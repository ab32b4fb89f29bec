"""The work of `ray_jobs.stages.review_sentiments`: classify reviews, publish the sentiments, log their accuracy."""

from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.progress import Progress, phased
from infra.settings import Settings, load_settings
from ray_jobs.data.reviews import reviewed_positions
from ray_jobs.data.tables import publish, table_exists, table_version
from ray_jobs.encoders.distinct_texts import distinct_texts, hashes_of
from ray_jobs.registry import runs
from ray_jobs.sentiment.quality import THRESHOLD, agreement
from ray_jobs.sentiment.settings import PROBE, STAGE, ReviewSentimentsSettings
from ray_jobs.stages import text_vectors
from ray_jobs.text_vectors import encoder_of, vectors_of
from schemas.handoff import StageReport
from schemas.review_sentiments import NEGATIVE, POSITIVE, REVIEW_SENTIMENTS
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

_DECIMALS = 4


def run(request: StageRequest) -> StageReport:
    """Publish ``review_sentiments`` for the request's day.

    Texts are read and cut as in the stage text_vectors, with its settings.

    Raises:
        SettingError: the classifier is not available.
        DataError: a table is missing, or there are too few reviews of a class for the probe.
    """
    settings = load_settings()
    own = stage_settings(ReviewSentimentsSettings, settings, request)
    reading = stage_settings(text_vectors.TextVectorsSettings, settings, request)
    encoder = request.upstream.get("text_vectors.encoder") or encoder_of(request, reading)
    classifier = f"{PROBE}:{encoder}" if own.classifier == PROBE else own.classifier
    uri = settings.table_uri(request.dataset, REVIEW_SENTIMENTS.name)
    before = table_version(uri) if table_exists(uri) else None
    progress = Progress(settings.home, STAGE)
    progress.update(0, 1, "reading tables")
    rows = reviewed_positions(settings, request, reading.max_review_words)

    params = {**asdict(own), "encoder": encoder, "max_review_words": reading.max_review_words}
    run_id = runs.find_or_start(settings, request, f"review sentiments {request.partition}", params)
    with runs.finishing(run_id):
        scores = _scores(rows, own, encoder, settings, request, progress).round(_DECIMALS)
        handoff = publish(
            _published(rows, scores, classifier),
            REVIEW_SENTIMENTS,
            uri,
            {"partition_date": request.partition_date()},
            request.identity(),
        )
        stars = rows["rating"].to_numpy()
        positive = int((scores >= THRESHOLD).sum())
        counts = {"reviews": len(scores), "positive": positive, "negative": len(scores) - positive}
        measured = {name: round(value, 6) for name, value in agreement(scores, stars).items()}
        runs.log_metrics(run_id, [(name, float(value), 0) for name, value in (counts | measured).items()])
        if (given := ~np.isnan(stars)).any():
            from ray_jobs.registry.plots import sentiment_by_stars

            runs.log_figure(run_id, sentiment_by_stars(scores[given], stars[given]), "plots/sentiment_by_stars.png")
    accuracy = f", accuracy {measured['accuracy']:.3f}" if "accuracy" in measured else ""
    progress.update(1, 1, f"{len(scores):,} reviews judged{accuracy}")
    return StageReport(
        stage=STAGE,
        status="reused" if handoff.version == before else "done",
        handoffs={REVIEW_SENTIMENTS.name: handoff},
        counts={**counts, **measured},
        outputs={"classifier": classifier, "mlflow_run_id": run_id},
    )


@phased("classifying reviews", lambda scores: {"reviews": len(scores)})
def _scores(
    rows: pa.Table,
    own: ReviewSentimentsSettings,
    encoder: str,
    settings: Settings,
    request: StageRequest,
    progress: Progress,
) -> npt.NDArray[np.float64]:
    """Probability of positive per row, float64[N]."""
    texts = rows["text"]
    if not len(texts):
        return np.zeros(0)
    if own.classifier == PROBE:
        from ray_jobs.sentiment.probe import cross_fitted

        vectors = vectors_of(settings, request, encoder, texts)
        stars, users = rows["rating"].to_numpy(), rows["user_id"].to_pylist()

        def fitted(done: int, total: int) -> None:
            progress.update(done, total + 1, "probes fitted")

        return cross_fitted(vectors, stars, users, own, fitted)
    from ray_jobs.sentiment.hub import hub_scores

    distinct, found = distinct_texts(texts), []
    for batch in hub_scores(distinct, own, settings.ray.use_gpu):
        found.append(batch)
        progress.update(sum(part.num_rows for part in found), distinct.num_rows + 1, "texts classified")
    judged = pa.concat_tables(found).combine_chunks()
    places = pc.index_in(hashes_of(texts), judged["content_hash"].combine_chunks())
    scores: npt.NDArray[np.float64] = judged["score"].take(places).to_numpy().astype(np.float64)
    return scores


def _published(rows: pa.Table, scores: npt.NDArray[np.float64], classifier: str) -> pa.Table:
    """Rows of the table without its partition column."""
    columns = {name: rows[name] for name in ("user_id", "position", "item_id", "rating")}
    tone = np.where(scores >= THRESHOLD, POSITIVE, NEGATIVE)
    schema = pa.schema([field for field in REVIEW_SENTIMENTS.arrow_schema() if field.name != "partition_date"])
    columns |= {"sentiment": tone.tolist(), "score": scores, "classifier": [classifier] * len(scores)}
    return pa.table({field.name: columns[field.name] for field in schema}).cast(schema)
