"""The spans of Ray Train's workers, which are processes of the cluster."""

import ray
from small_training import SETTINGS, small_plan

from infra import traces
from infra.settings import RaySettings
from ray_jobs.cluster import connect
from ray_jobs.training.ray_train import train
from tests.trace_receiver import trace_receiver


def test_each_worker_is_a_span_of_the_training(tmp_path, monkeypatch):
    with trace_receiver() as (address, spans):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        connect()
        try:
            settings = RaySettings(workers=2, cpus_per_worker=1, storage=str(tmp_path / "runs"))
            with traces.root("stage train", service="penchant-ray", facts={}, parent=""):
                train(small_plan(SETTINGS), settings, run_name="traced", home=str(tmp_path), stage="train_recommender")
        finally:
            ray.shutdown()
    by_name = {span.name: span for span in spans}
    phase = by_name["training on Ray"]
    assert phase.parent == by_name["stage train"].id
    workers = [by_name[f"training worker {rank}"] for rank in (0, 1)]
    assert [(span.trace, span.parent, span.facts["rank"]) for span in workers] == [
        (phase.trace, phase.id, rank) for rank in (0, 1)
    ]
    assert all(phase.began < span.began < span.ended <= phase.ended for span in workers)
