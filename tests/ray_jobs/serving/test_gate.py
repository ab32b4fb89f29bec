"""The gate, on uvicorn as Serve has it, before an application that only tells what it was given."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections import Counter
from http.client import HTTPConnection

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse

from ray_jobs.serving import gate, ray_service
from ray_jobs.serving.deployment import limits
from ray_jobs.serving.gate import LARGE, MOST_HEAD, MOST_LARGE, Gate, Limits, TimedProtocol, digest
from ray_jobs.serving.host_check import host_problem
from ray_jobs.serving.settings import ServingSettings

SECRET = "open-sesame"


class Inside:
    """The application; requests for ``/slow`` wait for `go`."""

    def __init__(self):
        self.go = threading.Event()
        self.waiting = 0
        self.asked = Counter()

    async def __call__(self, scope, receive, send):
        request = Request(scope, receive)
        body = await request.body()
        if scope["path"] == "/slow":
            self.waiting += 1
            while not self.go.is_set():
                await asyncio.sleep(0.005)
        self.asked[scope["path"]] += 1
        told = {"path": scope["path"], "bytes": len(body), "headers": sorted(request.headers)}
        await JSONResponse(told)(scope, receive, send)


class Served:
    def __init__(self, port, inside):
        self.port, self.inside = port, inside

    def ask(self, path="/recommend", body=b"{}", method="POST", **headers):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            found = connection.getresponse()
            return found.status, json.loads(found.read()), found.headers
        finally:
            connection.close()

    def send(self, data):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(data)
        return connection

    def later(self, *arguments, **named):
        """RecommendRequest in a thread; its answer is in the list that comes back."""
        found = []
        thread = threading.Thread(target=lambda: found.append(self.ask(*arguments, **named)))
        thread.start()
        return thread, found

    def until_waiting(self, number):
        end = time.monotonic() + 20
        while self.inside.waiting < number:
            assert time.monotonic() < end
            time.sleep(0.005)


@pytest.fixture
def serve():
    """Starts a server with limits."""
    with contextlib.ExitStack() as stack:

        def start(**changes):
            plain = {"hosts": ("127.0.0.1", "localhost"), "token_digest": "", "most_bytes": 4 * LARGE}
            most = Limits(**{**plain, "read_s": 20.0, "in_flight": 4, "per_client": 0, **changes})
            protocol = type("Protocol", (TimedProtocol,), {"limits": most, "_of_client": Counter()})
            inside = Inside()
            config = uvicorn.Config(Gate(inside, most), http=protocol, log_level="critical", lifespan="off")
            server, listening = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0), backlog=512)
            thread = threading.Thread(target=server.run, args=([listening],))
            thread.start()

            def stop():
                inside.go.set()
                server.should_exit = server.force_exit = True
                thread.join()

            stack.callback(stop)
            return Served(listening.getsockname()[1], inside)

        yield start


def status_of(connection):
    line = connection.makefile("rb").readline()
    connection.close()
    return int(line.split()[1]) if line else None


def test_what_is_in_order_reaches_the_application_whole_and_without_the_clients_headers(serve):
    served = serve()
    asked = {"X_Request_Timeout_Seconds": "0", "serve_multiplexed_model_id": "x", "X_Penchant_Gate": "forged"}
    status, told, _ = served.ask(body=b"x" * (3 * LARGE), X_Request_Id="n1", **asked)
    assert status == 200
    assert told == {"path": "/recommend", "bytes": 3 * LARGE, "headers": ["x-penchant-gate", "x-request-id"]}
    assert served.ask(X_Request_Id="n" * 1000)[1]["headers"] == ["x-penchant-gate"]
    assert served.ask("/-/healthz", b"", "GET")[1]["headers"] == []


def test_a_body_that_is_too_large_is_not_read(serve):
    served = serve()
    status, told, _ = served.ask(body=b"x" * (4 * LARGE + 1))
    assert status == 413
    assert str(4 * LARGE) in told["problem"]
    chunks = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert status_of(served.send(chunks + (b"10000\r\n" + b"x" * LARGE + b"\r\n") * 5)) == 413
    assert status_of(served.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")) == 413


def test_half_sent_requests_stop_nobody_and_are_ended(serve):
    served = serve(read_s=0.4)
    half = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\n"
    started = time.monotonic()
    heads = [served.send(half) for _ in range(150)]
    bodies = [served.send(half + b"Content-Length: 9\r\n\r\n{") for _ in range(150)]
    assert served.ask()[0] == served.ask("/health", b"", "GET")[0] == 200
    silent = served.send(b"")
    assert {status_of(connection) for connection in heads + bodies} == {408}
    assert status_of(silent) is None
    assert time.monotonic() - started < 10


def test_a_byte_now_and_then_does_not_win_time(serve):
    served = serve(read_s=0.3)
    connection = served.send(b"\r\n")
    with contextlib.suppress(OSError):
        for _ in range(60):
            connection.sendall(b"\r\n")
            time.sleep(0.02)
    connection.settimeout(5)
    with contextlib.suppress(ConnectionError):
        connection.recv(100)  # raises TimeoutError where the connection is still open
    connection.close()
    assert served.ask()[0] == 200


def test_a_head_without_end_is_refused(serve):
    served = serve()
    line = b"X-A: " + b"a" * 1000 + b"\r\n"
    with contextlib.suppress(ConnectionError):
        assert status_of(served.send(b"GET /health HTTP/1.1\r\n" + line * (2 * MOST_HEAD // len(line)))) == 431
    assert served.ask()[0] == 200


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Host": "evil.example:8100"}, "Host 'evil.example:8100' is none of the names"),
        ({"Host": ""}, "Host '' is none"),
        ({"Origin": "https://evil.example"}, "Origin 'https://evil.example' is none"),
        ({"Origin": "null"}, "Origin 'null' is none"),
        ({"Host": "[::1"}, "is none of the names"),
    ],
)
def test_strangers_are_refused_by_name(serve, headers, words):
    status, told, _ = serve().ask(**headers)
    assert status == 403
    assert words in told["problem"]
    assert "serving.hosts" in told["problem"]


def test_names_of_this_machine_and_of_the_settings_are_answered(serve):
    served = serve(hosts=("localhost", "::1", "shop.example"))
    for host in ("localhost:1", "[::1]:8100", "shop.example", "SHOP.example:443"):
        assert served.ask(Host=host, Origin=f"http://{host}")[0] == 200
    assert serve(hosts=("*",)).ask(Host="any.example", Origin="null")[0] == 200


@pytest.mark.parametrize(
    ("named", "asked"),
    [
        ("MyHost", "myhost:8100"),
        ("[::1]", "[::1]:8100"),
        ("::1", "[::1]"),
        ("myhost:8100", "MYHOST"),
        ("FE80::1", "[fe80::1]"),
    ],
)
def test_a_name_is_the_same_however_it_is_written(named, asked):
    assert host_problem([asked], [f"http://{asked}"], (named,)) is None
    assert "'evil.example'" in str(host_problem(["evil.example"], [], (named,)))
    assert "''" in str(host_problem([], [], (named,)))


@pytest.mark.parametrize(
    "host", ["localhost, evil.example", "localhost:1, evil.example", "me@localhost", "localhost/x", ":80"]
)
def test_what_is_no_name_is_nobodys(host):
    assert "is none of the names" in str(host_problem([host], [], ("localhost",)))
    assert "is none of the names" in str(host_problem(["localhost"], [f"http://{host}"], ("localhost",)))


@pytest.mark.parametrize("order", [("evil.example", "localhost"), ("localhost", "evil.example")])
def test_two_names_are_none(serve, order):
    served = serve()
    head = "".join(f"Host: {name}\r\n" for name in order)
    assert status_of(served.send(f"POST / HTTP/1.1\r\n{head}Content-Length: 0\r\n\r\n".encode())) in (400, 403)
    assert "is repeated" in str(host_problem(list(order), [], ("localhost",)))
    assert "is repeated" in str(host_problem(["localhost"], [f"http://{name}" for name in order], ("localhost",)))


def test_a_token_is_wanted_of_all_but_health_checks(serve):
    served = serve(token_digest=digest(SECRET))
    for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": SECRET}, {"Authorization": "Bearer "}):
        status, told, headers = served.ask(**wrong)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert SECRET not in str(told)
    assert served.ask(Authorization=f"Bearer {SECRET}")[0] == 200
    assert served.ask("/health", b"", "GET")[0] == 200
    assert served.ask("/version", b"", "GET")[0] == 401


def test_what_cannot_be_answered_now_is_told_so_and_health_has_places_of_its_own(serve):
    served = serve(in_flight=2)
    waiting = [served.later("/slow") for _ in range(2)]
    served.until_waiting(2)
    status, _, headers = served.ask()
    assert (status, headers["Retry-After"]) == (503, "1")
    assert served.ask("/health", b"", "GET")[0] == 200
    served.inside.go.set()
    for thread, found in waiting:
        thread.join()
        assert found[0][0] == 200
    assert served.ask()[0] == 200


def test_one_client_has_not_all_places(serve):
    served = serve(per_client=2)
    waiting = [served.later("/slow") for _ in range(2)]
    served.until_waiting(2)
    status, told, headers = served.ask()
    assert (status, headers["Retry-After"]) == (429, "1")
    assert "2 requests from 127.0.0.1" in told["problem"]
    assert served.ask("/health", b"", "GET")[0] == 200
    connections = [served.send(b"") for _ in range(20)]
    assert status_of(connections[-1]) is None
    for connection in connections:
        connection.close()
    served.inside.go.set()
    for thread, _ in waiting:
        thread.join()
    assert served.ask()[0] == 200, "places are given back"


def test_looks_at_health_share_one_answer(serve, monkeypatch):
    monkeypatch.setattr(gate, "LOOK_S", 60.0)
    served = serve(per_client=0)
    found = [served.later("/health", b"", "GET") for _ in range(30)]
    for thread, answers in found:
        thread.join()
        assert answers[0][:2] == (200, {"path": "/health", "bytes": 0, "headers": ["x-penchant-gate"]})
    assert served.inside.asked["/health"] == 1
    monkeypatch.setattr(gate, "LOOK_S", 0.0)
    assert served.ask("/health/", b"", "GET")[1]["path"] == "/health/"
    assert served.ask("/health")[1]["bytes"] == 2, "only a GET is a look"


def test_large_requests_wait_for_large_ones_and_small_ones_for_none(serve):
    served = serve(in_flight=100)
    waiting = [served.later("/slow", b"x" * (LARGE + 1)) for _ in range(MOST_LARGE)]
    served.until_waiting(MOST_LARGE)
    assert served.ask(body=b"x" * (LARGE + 1))[0] == 503
    assert served.ask(body=b"x" * LARGE)[0] == 200
    served.inside.go.set()
    for thread, found in waiting:
        thread.join()
        assert found[0][0] == 200
    assert served.ask(body=b"x" * (LARGE + 1))[0] == 200


@pytest.fixture
def proxy(monkeypatch):
    """This process as a proxy that has no gate yet."""
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))
    monkeypatch.setattr(TimedProtocol, "limits", None, raising=False)


def test_serve_finds_the_gate_by_its_environment_and_no_token_in_it(monkeypatch, proxy):
    given = limits(ServingSettings(token=SECRET, hosts=("a", "b"), replicas=3))
    environment = given.as_environment()
    assert SECRET not in str(environment)
    assert SECRET not in str(ServingSettings(token=SECRET))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    module, _, name = environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].rpartition(".")
    assert (module, name) == (gate.__name__, "middlewares")
    (found,) = gate.middlewares()
    assert (found.cls, found.args) == (Gate, (given,))
    assert TimedProtocol.limits == given
    config = uvicorn.Config(lambda *_: None)
    config.load()
    assert config.http_protocol_class is TimedProtocol


def test_a_ray_service_has_the_gate_and_the_model_of_its_settings(monkeypatch, proxy):
    monkeypatch.setenv("PENCHANT_STAGES__SERVING__TOKEN", SECRET)
    monkeypatch.setenv("PENCHANT_STAGES__SERVING__HOSTS", '["shop.example.org"]')
    monkeypatch.setenv("PENCHANT_STAGES__SERVING__REPLICAS", "2")
    (found,) = ray_service.middlewares()
    assert TimedProtocol.limits == found.args[0]
    assert found.args[0].hosts == ("shop.example.org",)
    assert found.args[0].token_digest == gate.digest(SECRET)
    assert found.args[0].in_flight == 2 * ServingSettings().queue
    deployed = ray_service.build({"dataset": "shop"})._bound_deployment
    assert (deployed.name, deployed.num_replicas) == ("penchant-shop", 2)
    assert SECRET not in str(deployed.init_args)


def scraped(served, **headers):
    connection = HTTPConnection("127.0.0.1", served.port, timeout=20)
    connection.request("GET", "/metrics", headers=headers)
    found = connection.getresponse()
    text = found.read().decode()
    connection.close()
    return found.status, found.headers["Content-Type"], text


def test_metrics_tell_routes_and_statuses_of_all_requests_and_ask_for_the_token(serve):
    served = serve(token_digest=digest(SECRET), in_flight=1)
    assert scraped(served)[0] == 401
    assert scraped(served, Host="evil.example")[0] == 403
    bearer = {"Authorization": f"Bearer {SECRET}"}
    assert served.ask(**bearer)[0] == served.ask("/health", b"", "GET")[0] == 200
    assert served.ask(body=b"x" * (4 * LARGE + 1), **bearer)[0] == 413
    assert served.ask("/users/7", **bearer)[0] == 200
    slow, _ = served.later("/slow", **bearer)
    served.until_waiting(1)
    assert served.ask(**bearer)[0] == 503
    status, kind, text = scraped(served, **bearer)
    served.inside.go.set()
    slow.join()
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    counted = dict(line.rsplit(" ", 1) for line in text.splitlines() if "requests_total{" in line)
    assert counted == {
        f'penchant_serving_requests_total{{route="{route}",status="{status}"}}': "1.0"
        for route, status in (
            *(("/metrics", 401), ("/metrics", 403), ("/recommend", 200), ("/recommend", 413), ("/recommend", 503)),
            *(("/health", 200), ("other", 200)),
        )
    }
    assert "penchant_serving_requests_in_progress 2.0" in text
    assert served.inside.asked["/metrics"] == 1


def test_each_scrape_asks_as_many_replicas_as_there_are_and_not_more_than_a_few_times_a_second(serve):
    served = serve(replicas=3)
    for _ in range(5):
        assert scraped(served)[0] == 200
    assert served.inside.asked["/metrics"] in (3, 6)
