import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.background import in_background
from tests.chain.free_ports import free_ports
from tests.cluster.store_gate import Gate


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def passed(tmp_path):
    """A gate before a store, the store's requests, and the file that closes it."""
    store = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    store.seen = []
    (port,) = free_ports(1)
    gate = Gate(port, store.server_port, tmp_path / "closed")
    threading.Thread(target=gate.serve, daemon=True).start()
    with in_background(store):
        yield gate, store.seen, http.client.HTTPConnection("127.0.0.1", port), tmp_path / "closed"


def put(connection, body):
    connection.request("PUT", "/a", body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_a_closed_gate_answers_503_and_passes_nothing_on(passed):
    gate, seen, connection, closed = passed
    large = b"x" * 3_000_000
    assert put(connection, large) == (200, large)
    assert put(connection, b"two") == (200, b"two")
    closed.touch()
    assert put(connection, large)[0] == 503
    assert put(connection, b"four")[0] == 503
    assert gate.refused == 2
    closed.unlink()
    assert put(connection, b"five") == (200, b"five")
    assert seen == [large, b"two", b"five"]
    assert (closed.parent / "refused").stat().st_size == 2
