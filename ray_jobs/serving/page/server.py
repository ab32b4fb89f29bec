"""The page over HTTP, with Python's own server: while nobody asks it takes no processor time.

It listens on 127.0.0.1 and answers only what is addressed to this machine, see `ray_jobs.serving.strangers`.
"""

import json
import logging
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from infra.settings import Settings
from ray_jobs.serving.page.problem import Problem
from ray_jobs.serving.page.settings import PageSettings
from ray_jobs.serving.strangers import stranger

if TYPE_CHECKING:
    from ray_jobs.serving.page.answers import Answers

MOST_BYTES = 1 << 20
ANSWERED = {
    ("GET", "/models"): "models",
    ("GET", "/start"): "start",
    ("GET", "/items"): "items",
    ("POST", "/recommend"): "recommend",
    ("POST", "/heard"): "heard",
}
"""Which method of `Answers` answers what; beside them there are ``GET /`` and ``GET /health``."""
_LOG = logging.getLogger(__name__)
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class PageServer(ThreadingHTTPServer):
    """The server.

    Args:
        answers: made at the first question where it is not given: a page that nobody looks at loads no engine.
        port: instead of the one in `chosen`; 0 takes a free one.
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
        """Who answers questions about models."""
        with self._making:
            if self._answers is None:
                from ray_jobs.serving.page.answers import Answers

                self._answers = Answers(self._settings, self._chosen)
            return self._answers

    def health(self) -> dict[str, Any]:
        """Which versions are in memory, and what is wrong with them."""
        return {"status": "ok", "models": []} if self._answers is None else self._answers.health()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120
    server: PageServer

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def _handle(self) -> None:
        try:
            self._refuse_strangers()
            self._route()
        except Problem as error:
            self._send_json(error.status, {"field": error.field, "problem": error.problem})
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True
        except Exception as error:
            _LOG.exception("%s %s failed", self.command, self.path)
            problem = f"{type(error).__name__}: {error}"
            self._send_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"field": "", "problem": problem})

    def _refuse_strangers(self) -> None:
        problem = stranger(self.headers.get_all("Host", []), self.headers.get_all("Origin", []), self.server.hosts)
        if problem is not None:
            self.close_connection = True
            raise Problem(HTTPStatus.FORBIDDEN, f"{problem}; open http://127.0.0.1:<port>/ or set page.hosts")

    def _route(self) -> None:
        parts = urlsplit(self.path)
        body = self._body()
        if self.command == "GET" and parts.path == "/":
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif self.command == "GET" and parts.path == "/health":
            self._send_json(HTTPStatus.OK, self.server.health())
        elif method := ANSWERED.get((self.command, parts.path)):
            found = getattr(self.server.answers, method)(dict(parse_qsl(parts.query)), body)
            self._send_json(HTTPStatus.OK, found)
        elif parts.path in {"/", "/health", *(path for _, path in ANSWERED)}:
            raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, f"{parts.path} is not asked with {self.command}")
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
        return self.rfile.read(int(length))

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
