"""The trace of a run of real stages, of Spark and of Ray, as a collector gets it."""

import os
import subprocess
import sys

from infra.settings import REPOSITORY
from tests.trace_receiver import trace_receiver, tree

RUN = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


def test_stages_of_all_engines_share_the_trace_of_their_run(tmp_path):
    world = tmp_path / "world"
    with trace_receiver() as (address, spans):
        environment = {
            **os.environ,
            "PENCHANT_HOME": str(tmp_path / "home"),
            "PENCHANT_MLFLOW__TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
            "OTEL_EXPORTER_OTLP_ENDPOINT": address,
            "TRACEPARENT": RUN,
        }

        def run(*words):
            subprocess.run([sys.executable, "-m", *words], env=environment, cwd=REPOSITORY, check=True)

        run("pipelines.landing.planted_world", f"--out={world}", "--users=60", "--items=40")
        files = [f"--reviews={world}/reviews.jsonl.gz", f"--items={world}/meta.jsonl.gz"]
        run("pipelines.tools.register", "--name=traced", *files)
        for stage in ("ingest", "item_vectors"):
            latest = [] if stage == "ingest" else ["--latest"]
            run("infra.command_line", "run", stage, "--dataset=traced", "--partition=2026-01-31", *latest)
    sys.stdout.write("\n".join([*tree(spans), ""]))
    assert {span.trace for span in spans} == {"ab" * 16}
    stages = {span.name: span for span in spans if span.parent == "cd" * 8}
    assert {name: span.service for name, span in stages.items()} == {
        "stage ingest": "penchant-spark",
        "stage item_vectors": "penchant-ray",
    }
    for stage, phases in (
        ("ingest", {"start of the engine", "checking reviews", "gate of reviews", "writing reviews"}),
        ("item_vectors", {"start of the engine", "encoding texts"}),
    ):
        whole = stages[f"stage {stage}"]
        inside = {span.name: span for span in spans if span.parent == whole.id}
        assert phases <= set(inside)
        assert all(whole.began <= span.began <= span.ended <= whole.ended for span in inside.values())
    assert not any(span.failed for span in spans)
