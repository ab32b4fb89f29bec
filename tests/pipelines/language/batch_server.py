"""A real HTTP endpoint with a batch API that works by script and counts what was paid for."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from scripted_server import Reply, chat_reply, error_reply

from tests.background import in_background


@dataclass
class Plan:
    """How one batch goes.

    Args:
        answer: the reply to a request, given its custom id and body; None leaves it without one.
        ends_as: status at the end.
        errors: why it failed.
        extra_lines: lines of the output file that belong to nobody.
    """

    answer: Callable[[str, dict[str, Any]], Reply | None] = lambda key, body: chat_reply(key_text(body))
    ends_as: str = "completed"
    errors: list[dict[str, Any]] = field(default_factory=list)
    extra_lines: list[str] = field(default_factory=list)


def key_text(body: dict[str, Any]) -> str:
    return body["messages"][0]["content"].upper()


class BatchServer(ThreadingHTTPServer):
    """`plan(n)` says how the n-th batch goes, from 1; a batch ends at the second look at it.

    `fault(step, n)` may give a reply that takes the place of the n-th one to a step: upload, create, list, look,
    content or cancel. What was asked for is done all the same. `page` is the number of batches in a list.
    """

    daemon_threads = True

    def __init__(self, plan: Callable[[int], Plan], fault: Callable[[str, int], Reply | None], page: int) -> None:
        self.plan, self.fault, self.page = plan, fault, page
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.paid: Counter[str] = Counter()
        self.steps: Counter[str] = Counter()
        self.queue_is_full: Callable[[], bool] = lambda: False
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def upload(self, multipart: bytes, boundary: bytes) -> dict[str, Any]:
        (content,) = (
            part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
            for part in multipart.split(b"--" + boundary)
            if b'name="file"' in part
        )
        return {"id": self._keep(content), "object": "file", "bytes": len(content), "purpose": "batch"}

    def _keep(self, content: bytes) -> str:
        name = f"file-{len(self.files) + 1}"
        self.files[name] = content
        return name

    def create(self, wanted: dict[str, Any]) -> dict[str, Any]:
        number = len(self.batches) + 1
        batch = {
            "id": f"batch_{number:03d}",
            "object": "batch",
            "endpoint": wanted["endpoint"],
            "input_file_id": wanted["input_file_id"],
            "completion_window": wanted["completion_window"],
            "metadata": wanted["metadata"],
            "status": "validating",
            "created_at": int(time.time()),
            "looks": 0,
        }
        self.batches[batch["id"]] = batch
        return batch

    def look(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch["looks"] += 1
        if batch["looks"] == 1:
            batch["status"] = "in_progress"
        elif batch["status"] == "in_progress":
            self._end(batch, self.plan(int(batch["id"].removeprefix("batch_"))))
        return batch

    def _end(self, batch: dict[str, Any], plan: Plan) -> None:
        batch["status"] = plan.ends_as
        if plan.ends_as == "failed":
            batch["errors"] = {"object": "list", "data": plan.errors}
            return
        output, errors = list(plan.extra_lines), []
        for line in self.files[batch["input_file_id"]].decode().splitlines():
            row = json.loads(line)
            assert (row["method"], row["url"]) == ("POST", batch["endpoint"])
            reply = plan.answer(row["custom_id"], row["body"])
            if reply is None:
                if plan.ends_as == "expired":
                    error = {"code": "batch_expired", "message": "not in time"}
                    errors.append(json.dumps({"custom_id": row["custom_id"], "response": None, "error": error}))
                continue
            self.paid[row["custom_id"]] += reply.status == 200
            response = {"status_code": reply.status, "request_id": "r", "body": reply.body}
            lines = output if reply.status == 200 else errors
            lines.append(json.dumps({"custom_id": row["custom_id"], "response": response, "error": None}))
        # The first come last.
        if output:
            batch["output_file_id"] = self._keep("\n".join([*output[::-1], ""]).encode())
        if errors:
            batch["error_file_id"] = self._keep("\n".join([*errors[::-1], ""]).encode())

    def listed(self, after: str | None) -> dict[str, Any]:
        newest_first = sorted(self.batches.values(), key=lambda batch: batch["id"], reverse=True)
        rest = [batch for batch in newest_first if after is None or batch["id"] < after]
        return {"object": "list", "data": rest[: self.page], "has_more": len(rest) > self.page}


class _Handler(BaseHTTPRequestHandler):
    server: BatchServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/files":
            boundary = self.headers["Content-Type"].split("boundary=")[1].encode()
            self._do("upload", lambda: Reply(self.server.upload(body, boundary)))
        elif self.path == "/v1/batches":
            self._do("create", lambda: self._create(json.loads(body)))
        else:
            self._do("cancel", lambda: Reply({**self._batch(), "status": self._cancel()}))

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/v1/batches":
            after = dict(pair.split("=") for pair in query.split("&")).get("after")
            self._do("list", lambda: Reply(self.server.listed(after)))
        elif path.endswith("/content"):
            self._do("content", lambda: self._content(path.split("/")[3]))
        else:
            self._do("look", lambda: Reply(self.server.look(self._batch())))

    def _batch(self) -> dict[str, Any]:
        return self.server.batches[self.path.split("/")[3]]

    def _create(self, wanted: dict[str, Any]) -> Reply:
        if self.server.queue_is_full():
            return error_reply(429, "token_limit_exceeded", "Enqueued token limit reached")
        return Reply(self.server.create(wanted))

    def _cancel(self) -> str:
        self._batch()["status"] = "cancelled"
        return "cancelling"

    def _content(self, name: str) -> Reply:
        content = self.server.files.get(name)
        return error_reply(404) if content is None else Reply(content.decode())

    def _do(self, step: str, act: Callable[[], Reply]) -> None:
        with self.server.lock:
            reply = act()
            self.server.steps[step] += 1
            number = self.server.steps[step]
        reply = self.server.fault(step, number) or reply
        if reply.hang_up:
            self.close_connection = True
            return
        payload = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload[: len(payload) // 2] if reply.cut else payload)
        self.close_connection = self.close_connection or reply.cut

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


@contextmanager
def batch_server(
    plan: Callable[[int], Plan] = lambda n: Plan(),
    fault: Callable[[str, int], Reply | None] = lambda step, n: None,
    page: int = 100,
) -> Iterator[BatchServer]:
    server = BatchServer(plan, fault, page)
    with in_background(server):
        yield server
