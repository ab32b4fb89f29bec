"""A real HTTP endpoint that answers by script and counts what it was asked."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipelines.language.port import Port
from pipelines.language.requests import Answer, ScoreRequest
from tests.background import in_background


@dataclass(frozen=True)
class Reply:
    """What to send back: a status, a body (a string goes out as it is), headers.

    `hang_up` drops the connection instead, `cut` in the middle of the body.
    """

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False
    cut: bool = False
    delay: float = 0.0


def score(port: Port, prompt: str, *continuations: str) -> Answer:
    """The port's answer to one score request."""
    request = ScoreRequest(prompt_name="", prompt_version="", prompt=prompt, continuations=continuations)
    (answer,) = port.answer([request])
    return answer


Script = Callable[[str, dict[str, Any], int], Reply]


class ScriptedServer(ThreadingHTTPServer):
    """`script(path, body, n)` gives the reply to the n-th request, from 1; every request is kept in `calls`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.connections = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.calls.append((self.path, body))
            number = len(self.server.calls)
            self.server.in_flight += 1
            self.server.most_in_flight = max(self.server.most_in_flight, self.server.in_flight)
        try:
            reply = self.server.script(self.path, body, number)
            threading.Event().wait(reply.delay)
        finally:
            with self.server.lock:
                self.server.in_flight -= 1
        if reply.hang_up:
            self.close_connection = True
            return
        payload = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload[: len(payload) // 2] if reply.cut else payload)
        self.close_connection = self.close_connection or reply.cut

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


@contextmanager
def scripted_server(script: Script) -> Iterator[ScriptedServer]:
    server = ScriptedServer(script)
    with in_background(server):
        yield server


def chat_reply(text: str | None, finish_reason: str = "stop", refusal: str | None = None) -> Reply:
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return Reply(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": "scripted",
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
        }
    )


def error_reply(status: int, code: str = "", message: str = "scripted", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply({"error": {"message": message, "type": code or None, "code": code or None}}, status, named)
