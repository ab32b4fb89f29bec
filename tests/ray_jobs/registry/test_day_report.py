import re
from html.parser import HTMLParser

import pytest
from mlflow import MlflowClient
from reported_days import NAME, ORDER, Days

from ray_jobs import day_report
from ray_jobs.registry import runs

FIRST, SECOND, THIRD = "2026-01-30", "2026-01-31", "2026-02-01"


@pytest.fixture
def days(settings, monkeypatch):
    monkeypatch.setenv("PENCHANT_LLM__PRICE_IN", "2")
    return Days(settings, runs.connect(settings))


class Text(HTMLParser):
    """The words of a page, and where its links lead."""

    def __init__(self, page):
        super().__init__()
        self.words, self.links = [], []
        self.feed(page)

    def handle_data(self, data):
        self.words += data.split()

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name == "href"]


def page_of(report, folder):
    path = MlflowClient().download_artifacts(report.outputs["mlflow_run_id"], "report.html", str(folder))
    with open(path) as file:
        content = file.read()
    found = Text(re.sub(r"<style>.*?</style>", "", content, flags=re.S))
    return " ".join(found.words), found.links, content


def runs_of_days():
    client = MlflowClient()
    return client.search_runs([client.get_experiment_by_name("penchant/tiny/days").experiment_id])


def test_a_day_has_one_run_with_its_numbers_and_a_rerun_brings_it_up_to_date(days, tmp_path):
    days.whole(FIRST)
    first = day_report.run(days.request(FIRST))
    again = day_report.run(days.request(FIRST, generation=2, dag="manual"))
    assert first.outputs["mlflow_run_id"] == again.outputs["mlflow_run_id"]
    (run,) = runs_of_days()
    assert run.info.status == "FINISHED"
    metrics = run.data.metrics
    assert metrics["data.reviews_quarantined"] == 3
    lines = metrics["data.reviews_lines_read"] + metrics["data.items_lines_read"]
    assert metrics["data.duplicates_share"] == pytest.approx(41 / lines)
    assert metrics["data.mean_length"] == metrics["rows.interactions"] / 400
    assert (metrics["llm.calls"], metrics["llm.requests"]) == (121, 300)
    assert (metrics["paid.answers"], metrics["paid.useless"], metrics["paid.prompt_tokens"]) == (120, 1, 60_000)
    assert metrics["paid.cost"] == pytest.approx(60_000 * 2 / 1e6)
    assert metrics["quality.challenger.ndcg_10"] > metrics["quality.popularity.ndcg_10"] == 0.05
    assert "quality.champion.ndcg_10" not in metrics, "there was no champion"
    assert metrics["seconds.train_recommender"] == 95
    plots = {file.path for file in MlflowClient().list_artifacts(run.info.run_id, "plots")}
    assert plots == {f"plots/{name}.png" for name in ("data", "costs", "quality", "time", "versions")}


def test_the_page_says_what_changed_what_was_decided_and_links_to_all_of_it(days, tmp_path):
    days.whole(FIRST)
    day_report.run(days.request(FIRST))
    days.whole(SECOND, seed=3, quarantined=7)
    prompt = days.client.register_prompt(
        "penchant-review_preference", "Read {{review}}", tags={"penchant.prompt_version": "3"}
    )
    report = day_report.run(days.request(SECOND, overrides={"mendertok.epochs": 3}))
    assert report.counts["earlier_days"] == 1
    assert report.counts["versions"] == 2
    words, links, content = page_of(report, tmp_path)
    assert "overrides: none became mendertok.epochs=3" in words
    assert re.search(r"reviews: \d,\d{3} became \d,\d{3}", words)
    assert "Version 2 was kept: NDCG@10" in words
    assert "codebook rqvae-1 still fits; continues from version 3" in words
    assert "review_preference 3 small 15 1 7,500 300" in words
    assert content.count("data:image/png;base64,") == 6, "drift, too"
    assert "http://airflow:8080/dags/daily_retrain/runs/manual__2026-01-31" in links
    version = MlflowClient().get_model_version(NAME, "2")
    assert version.tags["penchant.prompts"] == "review_preference 3"
    assert version.tags["penchant.day_report"] == report.outputs["mlflow_run_id"], "no server, so no page"
    training = MlflowClient().get_run(version.run_id)
    assert "penchant-review_preference" in training.data.tags["mlflow.linkedPrompts"]
    again = MlflowClient().get_prompt_version("penchant-review_preference", prompt.version)
    assert again.tags["penchant.newest_model_version"] == f"{NAME}/2"


def test_the_page_shows_the_recommender_that_lost_beside_the_baseline_registered_instead(days, tmp_path):
    days.whole(FIRST)
    report = day_report.run(days.request(FIRST, recipe="tiger"))
    assert "not registered" not in page_of(report, tmp_path)[0], "tiger was not evaluated"
    measured = {"mendertok.test.ndcg_10": 0.08, "tiger.test.ndcg_10": 0.0712, "tiger.test.recall_10": 0.2}
    days.report(FIRST, "evaluate", 14.0, measured)
    words, _, _ = page_of(day_report.run(days.request(FIRST, recipe="tiger")), tmp_path)
    assert "not registered 0.0712 0.2" in words
    assert "NDCG@10 beside the champion passed" in words, "the checks are those of the version's run"


def test_a_failed_day_has_a_page_with_the_message_and_no_old_numbers(days, tmp_path):
    days.whole(FIRST)
    day_report.run(days.request(FIRST))
    days.report(SECOND, "ingest", 5.0, {"reviews.lines_read": 10, "reviews.ingested": 10, "gate_warnings.reviews": 2})
    days.report(SECOND, "evaluate", 5.0, {"mendertok.test.ndcg_10": 0.9})  # of an earlier try of the day
    days.failed(SECOND, "sequences", "sequences: GateFailed: <b>12</b> rows are too short")
    report = day_report.run(days.request(SECOND))
    assert report.outputs["day"] == "failed"
    assert report.counts["failed"] == 1
    words, links, _ = page_of(report, tmp_path)
    assert "sequences failed; 12 tasks after it did not run. What was champion still is." in words
    assert "sequences: GateFailed: <b>12</b> rows are too short" in words, "escaped"
    assert "http://airflow:8080/log" in links
    newest = next(run for run in runs_of_days() if run.info.run_name == SECOND)
    assert newest.data.tags["day"] == "failed"
    assert newest.data.metrics["data.gate_warnings"] == 2
    assert "quality.challenger.ndcg_10" not in newest.data.metrics


def test_a_day_without_changes_says_so(days, tmp_path):
    days.whole(FIRST)
    day_report.run(days.request(FIRST))
    days.report(SECOND, "ingest", 5.0, {"reviews.lines_read": 0, "reviews.ingested": 0})
    days.report(SECOND, "changes", 0.1, {}, reason="no new review since 2026-01-30")
    days.states = {name: "success" if name in ("ingest", "changes") else "skipped" for name in (*ORDER, "changes")}
    report = day_report.run(days.request(SECOND))
    assert report.outputs["day"] == "nothing new"
    words, _, _ = page_of(report, tmp_path)
    assert "Nothing was trained: 13 tasks were skipped." in words
    assert "no new review since 2026-01-30" in words


def test_without_a_run_the_reports_that_are_there_are_read(days):
    days.whole(THIRD)
    report = day_report.run(days.request(THIRD, upstream={}))
    assert report.counts["tasks"] == len(ORDER) - 3, "the branch not taken and two that leave no report are unknown"
    assert report.outputs["day"] == "complete"


def test_a_day_without_anything_is_no_error(days, tmp_path):
    report = day_report.run(days.request(FIRST, upstream={}))
    assert report.counts["tasks"] == report.counts["numbers"] == 0
    words, _, _ = page_of(report, tmp_path)
    assert "No task reported on data." in words
