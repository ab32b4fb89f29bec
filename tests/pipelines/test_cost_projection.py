"""Projected costs from a hand-made ledger."""

import datetime as dt

import pyarrow as pa
import pytest

from pipelines.delta_tables import append_rows
from pipelines.language.prompts import load_chat_prompt, load_title_prompt
from pipelines.language.requests import to_json
from pipelines.tools.cost_projection import main, measure
from schemas.denoised_sequences import DENOISED_SEQUENCES
from schemas.llm_responses import LLM_RESPONSES
from schemas.preferences import PREFERENCES
from schemas.run_identity import RunIdentity

DAY = dt.date(2026, 1, 31)
AT = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)


def answer(key, request, tokens, **values):
    return {
        **dict.fromkeys(("text", "logprobs", "token_counts", "finish_reason", "error")),
        "request_key": key,
        "kind": "chat",
        "model": "measured",
        "endpoint": "loopback/v1",
        "status": "ok",
        "request": request,
        "prompt_name": request.prompt_name,
        "prompt_version": request.prompt_version,
        "prompt_tokens": tokens[0],
        "completion_tokens": tokens[1],
        "latency_ms": 1.0,
        "answered_at": AT,
        "partition_date": DAY,
        **values,
    }


@pytest.fixture
def warehouse(spark, settings):
    read, fold = load_chat_prompt("review_preference"), load_chat_prompt("summary_fold")
    title = load_title_prompt("title_likelihood")
    line = read.render("like", stars="5", text="good strings")
    asked = [answer(f"read{n}", line, (400, 10 + n)) for n in range(4)]
    # The endpoint failed once, then answered: one request, paid for as it came. Older wordings count no more.
    asked.append(answer("read0", line, (0, 0), status="failed"))
    asked.append(answer("old", line, (9, 9), prompt_version="0", answered_at=AT - dt.timedelta(days=1)))
    asked += [answer("fold", fold.render("phrase", known="-", new="strings"), (200, 20))]
    asked += [answer(f"title{n}", title.render(("a", "b"), f"t{n}"), (50, 10), kind="score") for n in range(6)]
    asked.append(answer("alone", title.render((), "t"), (1, 1), kind="score"))
    for row in asked:
        row["request"] = to_json(row["request"], settings.llm)
    lists = ("preferences", "sentiments", "evidence")
    positions = [
        {"user_id": f"u{u}", "position": p, "as_of": AT, **{name: [] for name in lists}, "partition_date": DAY}
        | {"status": "none" if u < 2 else "not_asked"}
        for u in range(10)
        for p in range(4)
    ]
    scores = ("scores", "uncertainty", "keep_probability", "suspect", "replacements")
    histories = [
        {"user_id": f"u{u}", "item_ids": list("abcd"), **{name: [] for name in scores}, "partition_date": DAY}
        | {"status": "ok" if u < 3 else "not_asked"}
        for u in range(10)
    ]
    identity = RunIdentity(dag="test", partition=DAY.isoformat(), recipe="", config_hash="0" * 12)
    for table, rows in ((LLM_RESPONSES, asked), (PREFERENCES, positions), (DENOISED_SEQUENCES, histories)):
        frame = spark.createDataFrame(pa.Table.from_pylist(rows, schema=table.arrow_schema()))
        append_rows(spark, frame, table, settings.table_uri("d", table.name), identity)
    return settings


def test_rates_and_tokens_of_each_stage(spark, warehouse):
    found = measure(spark, warehouse, "d", DAY)
    assert {stage: (row.requests, row.reviews, row.tokens_in, row.tokens_out) for stage, row in found.items()} == {
        "preferences": (4, 8, 400.0, 11.5),
        "review_summaries": (1, 8, 200.0, 20.0),
        "denoised_sequences": (6, 12, 50.0, 10.0),
    }
    assert {row.model for row in found.values()} == {"measured"}
    turns = [
        turn["content"] for turn in load_chat_prompt("review_preference").render("like", stars="5", text="").messages
    ]
    characters = sum(map(len, turns[:-1]))
    assert found["preferences"].constant == pytest.approx(
        400 * characters / (characters + len("5 stars: good strings"))
    )
    assert found["denoised_sequences"].constant == 0


def test_costs_online_and_by_batch(warehouse, monkeypatch, capsys):
    monkeypatch.setenv("PENCHANT_HOME", warehouse.home)
    monkeypatch.setenv("PENCHANT_SPARK__JARS_DIR", str(warehouse.spark.jars_dir))
    arguments = ["--dataset", "d", "--partition", DAY.isoformat(), "--users", "1000000"]
    main([*arguments, "--new-reviews-per-day", "1000000", "--price", "p=1:10"])
    printed = capsys.readouterr().out
    assert "1,000,000 users of 4.0 reviews" in printed
    rows = [line.split() for line in printed.splitlines()]
    costs = [(row[0], *row[-2:]) for row in rows if row and row[0] in ("preferences", "denoised_sequences", "total")][
        2:
    ]
    # 2 million reviews read for 400 + 115 each; 2 million titles for 50 + 100; folds for half a million x (200 + 200).
    assert costs[:3] == [
        ("preferences", "1,030", "515.00"),
        ("denoised_sequences", "300.00", "300.00"),
        ("total", "1,530", "915.00"),
    ]
    # A day: each review read once, folded as often as read, and four titles near it scored again.
    assert costs[3:] == [
        ("preferences", "257.50", "128.75"),
        ("denoised_sequences", "300.00", "300.00"),
        ("total", "757.50", "528.75"),
    ]
    for wrong, told in ((["--partition", "2026-02-01"], "no user has requests"), (["--price", "cheap"], "NAME=IN:OUT")):
        with pytest.raises(SystemExit, match="2"):
            main([*arguments, *wrong])
        assert told in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--dataset", "other"])
    assert "no table" in capsys.readouterr().err
