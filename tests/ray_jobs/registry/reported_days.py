"""Days as the tasks of the daily run leave them: reports, the ledger and a registered version."""

import datetime as dt
import json
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from mlflow import MlflowClient

from infra.settings import Settings
from ray_jobs.data.tables import publish
from ray_jobs.registry import runs
from schemas.failure import Failure, write_failure
from schemas.handoff import Handoff, StageReport, write_report
from schemas.llm_responses import LLM_RESPONSES
from schemas.stage_request import StageRequest

NAME = "penchant-tiny"
ORDER = (
    "ingest",
    "sequences",
    "preferences",
    "item_vectors",
    "continuation",
    "choose_codebook",
    "semantic_ids",
    "append_items",
    "train_recommender",
    "train_baseline",
    "champion",
    "evaluate",
    "register",
    "recommendations",
)
WITHOUT_REPORT = ("choose_codebook", "champion")


@dataclass
class Days:
    """A data set's days, one after another."""

    settings: Settings
    client: MlflowClient
    made: int = 0
    states: dict[str, str] = field(default_factory=dict)

    def report(self, day, task_id, seconds=1.0, counts=None, tables=None, **outputs):
        handoffs = {
            name: Handoff(table=name, uri=f"/w/{name}", version=self.made, rows=rows, schema_hash="h")
            for name, rows in (tables or {}).items()
        }
        found = StageReport(
            stage=task_id, status="done", seconds=seconds, handoffs=handoffs, counts=counts or {}, outputs=outputs
        )
        write_report(self.settings.latest_report_uri("tiny", day, task_id), found)

    def pay(self, day, answers):
        rows = [
            {
                "request_key": f"{day}-{number}",
                "kind": "chat",
                "prompt_name": "review_preference",
                "prompt_version": "3",
                "model": "small",
                "endpoint": "http://e",
                "request": "{}",
                "status": "malformed" if number == 0 else "ok",
                "prompt_tokens": 500,
                "completion_tokens": 20,
                "latency_ms": 1.0,
                "answered_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
            }
            for number in range(answers)
        ]
        schema = pa.schema([f for f in LLM_RESPONSES.arrow_schema() if f.name != "partition_date"])
        partition = {"partition_date": dt.date.fromisoformat(day)}
        uri = self.settings.table_uri("tiny", "llm_responses")
        identity = StageRequest(stage="test", dataset="tiny", partition=day).identity()
        publish(pa.Table.from_pylist(rows, schema=schema), LLM_RESPONSES, uri, partition, identity)

    def version(self, day, ndcg, champion, promoted):
        """A training run with the promotion's checks, and its version; gives the run and the version's number."""
        request = StageRequest(stage="train", dataset="tiny", partition=day, recipe="mendertok")
        run_id = runs.find_or_start(self.settings, request, "mendertok", {})
        verdict = "passed" if promoted else "failed"
        note = f"NDCG@10 {ndcg:.4f} against {champion:.4f} of the champion, 400 users"
        check = {"name": "NDCG@10 beside the champion", "challenger": ndcg, "champion": champion, "bar": 0.9 * champion}
        latency = {"name": "latency", "challenger": 8.1, "champion": None, "bar": None, "verdict": "reported"}
        checks = [check | {"verdict": verdict, "note": note}, latency | {"note": "latency 8.1 ms"}]
        self.client.log_dict(run_id, {"checks": checks}, "promotion.json")
        runs.finish(run_id)
        if self.made == 0:
            self.client.create_registered_model(NAME)
        made = self.client.create_model_version(NAME, source=f"runs:/{run_id}/model", run_id=run_id)
        tags = {
            "penchant.partition": day,
            "penchant.recipe": "mendertok",
            "penchant.decision": "promoted" if promoted else "kept",
            "penchant.decision_reason": note,
            "penchant.test.ndcg_10": f"{ndcg:.6f}",
            "penchant.test.recall_10": f"{1.8 * ndcg:.6f}",
            **({"penchant.champion_since": f"{day}T04:10:00+00:00"} if promoted else {}),
        }
        for key, value in tags.items():
            self.client.set_model_version_tag(NAME, made.version, key, value)
        self.client.set_registered_model_alias(NAME, "challenger", made.version)
        if promoted:
            self.client.set_registered_model_alias(NAME, "champion", made.version)
        return run_id, str(made.version), note

    def whole(self, day, seed=0, quarantined=3):
        """A day on which everything ran; the first one fits a codebook, the others append to it."""
        rng = np.random.default_rng(seed)
        reviews, new = int(rng.normal(3500, 150)), 0 if not self.made else int(rng.integers(2, 9))
        first, ndcg = self.made == 0, round(0.08 + 0.01 * float(rng.random()) + 0.001 * self.made, 6)
        promoted = first or seed % 3 != 0
        run_id, number, note = self.version(day, ndcg, 0.081, promoted)
        self.report(
            day,
            "ingest",
            33.7,
            {
                "reviews.lines_read": reviews + quarantined + 41,
                "reviews.ingested": reviews,
                "reviews.quarantined": quarantined,
                "reviews.duplicates": 41,
                "items.lines_read": 160 + new,
                "items.ingested": 160 + new,
                "items.quarantined": 0,
                "items.duplicates": 0,
                "gate_warnings.reviews": int(seed % 4 == 1),
            },
            {"reviews": reviews, "items": 160 + new, "quarantine": quarantined},
        )
        counts = {"interactions": reviews, "sequences": 400, "gate_warnings.sequences": 0}
        self.report(day, "sequences", 26.4, counts, {"interactions": reviews, "sequences": 400})
        answers = 120 if first else 15
        self.pay(day, answers)
        asked = {"llm_requests": 300, "llm_cache_hits": 300 - answers, "llm_calls": answers + 1, "llm_cost": 0.01}
        asked |= {"llm_prompt_tokens": 500 * answers, "llm_completion_tokens": 20 * answers}
        self.report(day, "preferences", 61.0 if first else 12.0, asked, {"preferences": 3500}, mlflow_run="l" * 32)
        self.report(day, "item_vectors", 9.5, {"items": 160 + new, "encoded": new}, {"item_vectors": 160 + new})
        drift = {
            "new_items": new,
            "appended_share": 0.01 * self.made,
            "utilisation_0": 0.9,
            "reconstruction_mse_fitted": 0.21,
            "reconstruction_mse_appended": 0.21 + 0.004 * self.made,
        }
        why = "no version of an earlier day" if first else f"codebook rqvae-1 still fits; continues from version {seed}"
        self.report(day, "continuation", 0.8, {} if first else drift, reason=why)
        codes = "semantic_ids" if first else "append_items"
        self.report(day, codes, 40.0 if first else 2.0, {"items": 160}, {"semantic_ids": 160 + new}, codebook="rqvae-1")
        steps = {"steps": 900, "epochs": 15, "examples": 2100, "loss": 3.2}
        self.report(day, "train_recommender", 95.0, steps, mlflow_run_id=run_id, run_identity="r")
        self.report(day, "train_baseline", 21.0, steps, mlflow_run_id="b" * 32)
        measured = {"mendertok.test.ndcg_10": ndcg, "mendertok.test.recall_10": 1.8 * ndcg}
        measured |= {"sasrec.test.ndcg_10": 0.075, "popularity.test.ndcg_10": 0.05, "users": 400}
        measured |= {} if first else {"champion.test.ndcg_10": 0.081}
        self.report(day, "evaluate", 14.0, measured, {"measurements": 2400})
        decision = f"{'promoted' if promoted else 'kept'}: {note}"
        registered = {"model_name": NAME, "version": number, "decision": decision}
        self.report(day, "register", 11.0, {"promoted": int(promoted)}, **registered)
        self.report(day, "recommendations", 6.0, {"users": 400}, {"recommendations": 400})
        self.made += 1
        self.states = dict.fromkeys(ORDER, "success")
        self.states["append_items" if first else "semantic_ids"] = "skipped"

    def failed(self, day, task_id, message):
        """A day on which a task failed, and none after it ran."""
        place = ORDER.index(task_id)
        self.states = {name: "success" if n < place else "upstream_failed" for n, name in enumerate(ORDER)}
        self.states[task_id] = "failed"
        failure = Failure(task_id=task_id, message=message, page="http://airflow:8080/log")
        write_failure(self.settings.failure_uri("daily_retrain", f"manual__{day}", task_id), failure)

    def request(self, day, **changes):
        """What the operator asks of the stage after such a day."""
        tasks = [[t, s, "done" if s == "success" and t not in WITHOUT_REPORT else ""] for t, s in self.states.items()]
        run_id = f"manual__{day}"
        page = f"http://airflow:8080/dags/daily_retrain/runs/{run_id}"
        upstream = {"run.id": run_id, "run.page": page, "run.tasks": json.dumps(tasks)}
        values = {"recipe": "mendertok", "dag": "daily_retrain", "upstream": upstream, **changes}
        return StageRequest(stage="day_report", dataset="tiny", partition=day, **values)
