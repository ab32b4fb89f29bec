"""What a task on an executor asks for when it is started again."""

import pyarrow as pa
from scripted_server import chat_reply, scripted_server

from infra.settings import LLMSettings
from pipelines.language.answering import ANSWERED, answerer
from pipelines.language.journal import answers_of
from pipelines.language.requests import ChatRequest, request_key, to_json


def test_a_task_that_is_started_again_asks_only_for_what_the_lost_one_had_not(tmp_path):
    with scripted_server(lambda path, body, n: chat_reply(body["messages"][0]["content"].upper())) as server:
        llm = LLMSettings(base_url=server.base_url, concurrency=2)

        def rows(*texts):
            for text in texts:
                message = {"role": "user", "content": text}
                asked = to_json(
                    ChatRequest(prompt_name="p", prompt_version="1", messages=(message,), max_tokens=9), llm
                )
                yield {"request_key": request_key(asked), "request": asked, "asked_again": 0}

        def task(*texts):
            ask = answerer(llm, (str(tmp_path), "job-0"), run="r", bad_attempts=1, first_alone=False)
            (batch,) = ask(iter([pa.RecordBatch.from_pylist(list(rows(*texts)))]))
            assert batch.schema == ANSWERED
            return {row["request_key"]: row["text"] for row in batch.to_pylist() if row["status"]}

        lost = task("a", "b")
        (journal,) = tmp_path.glob("job-0-*.jsonl")
        with journal.open("a") as file:
            file.write('{"cut by its en')
        assert len(answers_of(str(tmp_path), "job-0")) == 2
        again = task("a", "b", "c")
        assert {"A", "B", "C"} == set(again.values())
        assert lost.items() < again.items()
        assert len(server.calls) == 3
        assert task("c", "a") == {key: text for key, text in again.items() if text != "B"}
        assert len(server.calls) == 3
