"""The page over HTTP, with the standard library's server, which takes no processor time between requests.

It listens on 127.0.0.1 and checks host names, see `ray_jobs.serving.host_check`.
"""

import json
import logging
import socket
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from infra.settings import Settings
from ray_jobs.serving.host_check import host_problem
from ray_jobs.serving.page.problem import Problem
from ray_jobs.serving.page.settings import PageSettings

if TYPE_CHECKING:
    from ray_jobs.serving.page.answers import Answers

MOST_BYTES = 1 << 20
READ_S = 30.0
"""Seconds for a request to arrive completely, counted from the end of the previous request of the connection."""
ANSWERED = {
    ("GET", "/models"): "models",
    ("GET", "/start"): "start",
    ("GET", "/items"): "items",
    ("POST", "/recommend"): "recommend",
    ("POST", "/matched"): "matched",
}
"""The methods of `Answers` by method and path; ``GET /`` and ``GET /health`` are answered here."""
_LOG = logging.getLogger(__name__)
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class PageServer(ThreadingHTTPServer):
    """The server.

    Args:
        answers: by default created at the first request that needs it, so that an unused page imports no engine.
        port: instead of the one in `chosen`; 0 for a free one.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, settings: Settings, chosen: PageSettings, answers: "Answers | None" = None, port: int | None = None
    ) -> None:
        self._settings, self._chosen, self._answers = settings, chosen, answers
        self.hosts = chosen.hosts
        self._making = threading.Lock()
        self.page = Path(__file__).with_name("page.html").read_bytes()
        super().__init__(("127.0.0.1", chosen.port if port is None else port), _Handler)

    @property
    def answers(self) -> "Answers":
        """Created at first use."""
        with self._making:
            if self._answers is None:
                from ray_jobs.serving.page.answers import Answers

                self._answers = Answers(self._settings, self._chosen)
            return self._answers

    def health(self) -> dict[str, Any]:
        """The loaded versions and their problems."""
        return {"status": "ok", "models": []} if self._answers is None else self._answers.health()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PageServer

    def handle_one_request(self) -> None:
        self._timer = threading.Timer(READ_S, self._hang_up)
        self._timer.daemon = True
        self._timer.start()
        try:
            super().handle_one_request()
        finally:
            self._timer.cancel()

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RD)

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def _handle(self) -> None:
        try:
            self._check_host()
            self._route()
        except Problem as error:
            self._send_json(error.status, {"field": error.field, "problem": error.problem})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception as error:
            _LOG.exception("%s %s failed", self.command, self.path)
            problem = f"{type(error).__name__}: {error}"
            self._send_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"field": "", "problem": problem})

    def _check_host(self) -> None:
        problem = host_problem(self.headers.get_all("Host", []), self.headers.get_all("Origin", []), self.server.hosts)
        if problem is not None:
            self.close_connection = True
            raise Problem(HTTPStatus.FORBIDDEN, f"{problem}; open http://127.0.0.1:<port>/ or set page.hosts")

    def _route(self) -> None:
        parts = urlsplit(self.path)
        body = self._body()
        self._timer.cancel()
        if self.command == "GET" and parts.path == "/":
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif self.command == "GET" and parts.path == "/health":
            self._send_json(HTTPStatus.OK, self.server.health())
        elif method := ANSWERED.get((self.command, parts.path)):
            found = getattr(self.server.answers, method)(dict(parse_qsl(parts.query)), body)
            self._send_json(HTTPStatus.OK, found)
        elif parts.path in {"/", "/health", *(path for _, path in ANSWERED)}:
            raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, f"{parts.path} does not take {self.command}")
        else:
            known = ", ".join(path for _, path in ANSWERED)
            raise Problem(HTTPStatus.NOT_FOUND, f"there is no {parts.path}; there are /, /health, {known}")

    def _body(self) -> bytes:
        if self.command == "GET":
            return b""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            self.close_connection = True
            raise Problem(HTTPStatus.LENGTH_REQUIRED, "the header Content-Length is missing")
        if int(length) > MOST_BYTES:
            self.close_connection = True
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body may have {MOST_BYTES} bytes, this has {length}")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            raise Problem(HTTPStatus.REQUEST_TIMEOUT, f"the request did not arrive within {READ_S:g} s")
        return body

    def _send_json(self, status: int, content: Any) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", _POLICY)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: Any) -> None:
        """Requests are not logged."""
