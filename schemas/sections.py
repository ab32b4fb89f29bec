"""The sections of settings that stages, servers and tools read, each with the class that declares it.

They stand under ``[stages.<section>]`` of the profile and before the dot in a run's overrides. A recipe's section has
the recipe's name, and its class stands in `schemas.recipes`.
"""

SECTIONS = {
    "ingest": "pipelines.stages.ingest:IngestSettings",
    "sequences": "pipelines.stages.sequences:SequenceSettings",
    "review_lines": "pipelines.language.reading:ReviewLineSettings",
    "preferences": "pipelines.stages.preferences:PreferenceSettings",
    "review_summaries": "pipelines.stages.review_summaries:SummaryStageSettings",
    "denoised_sequences": "pipelines.stages.denoised_sequences:DenoiseSettings",
    "item_descriptions": "pipelines.stages.item_descriptions:ItemDescriptionSettings",
    "llm": "pipelines.language.limits:LedgerSettings",
    "preference_benchmark": "pipelines.stages.preference_benchmark:BenchmarkSettings",
    "erasure": "pipelines.stages.erasure:ErasureSettings",
    "download": "pipelines.tools.download:DownloadSettings",
    "item_vectors": "ray_jobs.stages.item_vectors:ItemVectorsSettings",
    "text_vectors": "ray_jobs.stages.text_vectors:TextVectorsSettings",
    "review_sentiments": "ray_jobs.sentiment.settings:ReviewSentimentsSettings",
    "continuation": "ray_jobs.stages.continuation:ContinuationSettings",
    "semantic_ids": "ray_jobs.stages.semantic_ids:SemanticIdsSettings",
    "training_data": "ray_jobs.data.settings:TrainingDataSettings",
    "steering": "ray_jobs.steering.settings:SteeringSettings",
    "evaluate": "ray_jobs.stages.evaluate:EvaluateSettings",
    "steerability": "ray_jobs.stages.steerability:SteerabilitySettings",
    "promotion": "ray_jobs.registry.settings:PromotionSettings",
    "recommendations": "ray_jobs.stages.recommendations:RecommendationsSettings",
    "tune_denoiser": "ray_jobs.denoiser.settings:DenoiserSettings",
    "clean_up": "ray_jobs.retention.settings:CleanUpSettings",
    "serving": "ray_jobs.serving.settings:ServingSettings",
    "page": "ray_jobs.serving.page.settings:PageSettings",
}
"""``module:class`` by section; no engine is loaded to import one."""
