"""The page's server: what it answers, what it refuses, and when it loads what."""

import json
import socket
import threading
import time
from contextlib import suppress
from http.client import HTTPConnection

import pytest
from spoken_to import speechless, spoken_to, write_users

from infra.errors import SettingError
from infra.settings import Settings
from ray_jobs.serving.page import server as page_server
from ray_jobs.serving.page.__main__ import main
from ray_jobs.serving.page.answers import Answers
from ray_jobs.serving.page.server import MOST_BYTES, PageServer
from ray_jobs.serving.page.settings import PageSettings

STRANGER = {"Host": "evil.example:8090"}


class Registry:
    """Version 1 is steered, version 2 is not."""

    def __init__(self):
        self.bundles = {"m/1": spoken_to(), "m/2": spoken_to(steers=False)}
        self.alias = "m/1"
        self.looks = 0

    def newest(self):
        self.looks += 1
        if self.alias is None:
            raise SettingError("MLflow has no model version 'penchant-shop@champion'")
        return self.alias

    def load(self, version):
        return self.bundles[version]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    settings = Settings(home=str(tmp_path_factory.mktemp("home")))
    write_users(settings, "shop")
    return settings


@pytest.fixture
def asked(home, monkeypatch):
    """A way to ask the server, and its registry; the alias is looked at with every request."""
    speechless(monkeypatch)
    registry, names = Registry(), []
    answers = Answers(home, PageSettings(poll_s=0, users=4), lambda name: names.append(name) or registry)
    monkeypatch.setattr(answers, "_datasets", lambda: ["shop"])
    server = PageServer(home, PageSettings(), answers, port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=30)

    def ask(path, body=None, headers=None):
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, sent, headers or {})
        found = connection.getresponse()
        content = found.read()
        return found.status, json.loads(content) if "json" in found.headers["Content-Type"] else content.decode()

    ask.port = server.server_port
    yield ask, registry
    connection.close()
    server.shutdown()
    thread.join()
    server.server_close()
    assert set(names) <= {"penchant-shop"}


def test_the_page_needs_nothing_from_outside(asked):
    ask, registry = asked
    status, page = ask("/")
    assert status == 200
    assert "<title>Steer the list" in page
    assert "http://" not in page
    assert "https://" not in page
    assert ask("/health") == (200, {"status": "ok", "models": []})
    assert registry.looks == 0, "no model is loaded before somebody asks"


def test_it_begins_with_the_newest_users_and_sentences_of_the_catalogue(asked):
    ask, _ = asked
    status, found = ask("/start?dataset=shop")
    assert status == 200
    assert (found["model_version"], found["recipe"], found["items"]) == ("m/1", "popularity", 48)
    assert (found["steers"], found["reads"], found["note"]) == (True, True, "")
    users = {user["user_id"]: user for user in found["users"]}
    assert list(users) == ["u1", "u3", "u5", "u0"], "of whom something is known come first"
    assert users["u3"]["known"] == "Prefers number 2. Avoids wood"
    assert users["u0"]["known"] is None
    assert users["u1"]["history"][-1] == {"item_id": "i11", "title": "Colorful Lamp 11", "time": 1735862400}
    assert users["u1"]["asked_at"] == 1769904000
    assert len(found["examples"]) == 3
    assert found["examples"][0] == "Prefers kettle"


def test_lists_before_and_after_come_from_one_version_with_reasons(asked):
    ask, _ = asked
    one = {"history": ["i00"], "k": 4, "preference": "Quiet, but no lamp, and no elephants"}
    status, (before, after) = ask("/recommend?dataset=shop", [{**one, "strength": 0}, one])
    assert status == 200
    assert before["item_ids"] == ["i01", "i02", "i03", "i04"]
    assert after["titles"] == ["Quiet Kettle 4", "Quiet Kettle 12", "Quiet Kettle 20", "Quiet Kettle 28"]
    assert after["because"] == [["quiet"]] * 4
    assert after["unmatched"] == ["elephants"]
    assert before["model_version"] == after["model_version"] == "m/1"
    said = {"sentence": one["preference"], "item_ids": [*before["item_ids"], "nowhere"]}
    assert ask("/matched", said) == (
        200,
        {
            "wanted": ["quiet"],
            "refused": ["lamp"],
            "unmatched": ["elephants"],
            "against": [["lamp"], ["lamp"], ["lamp"], [], []],
        },
    )


def test_items_are_found_by_the_beginnings_of_their_words(asked):
    ask, _ = asked
    assert ask("/items?q=quiet%20kettle%204")[1] == [
        {"item_id": "i04", "title": "Quiet Kettle 4"},
        {"item_id": "i44", "title": "Quiet Kettle 44"},
    ]
    assert [item["title"] for item in ask("/items?q=KET%202")[1]][:2] == ["Colorful Kettle 23", "Compact Kettle 21"]
    assert ask("/items?q=uiet")[1] == []
    assert len(ask("/items")[1]) == 48


def test_a_new_champion_is_taken_up_and_a_broken_one_is_told(asked):
    ask, registry = asked
    assert ask("/start")[1]["model_version"] == "m/1"
    registry.alias = "m/2"
    found = ask("/start")[1]
    assert (found["model_version"], found["steers"], found["reads"], found["examples"]) == ("m/2", False, False, [])
    assert ask("/matched", {"sentence": "quiet", "item_ids": ["i00"]})[1]["against"] == [[]]
    registry.alias = "m/9"
    assert ask("/recommend", {"history": []})[1]["model_version"] == "m/2"
    status, health = ask("/health")
    assert (status, health["status"]) == (200, "stale")
    assert "m/9 does not load" in health["models"][0]["problem"]


def test_without_a_champion_one_sentence_says_so(asked):
    ask, registry = asked
    registry.alias = None
    status, found = ask("/start?dataset=shop")
    assert (status, found["problem"]) == (404, "MLflow has no model version 'penchant-shop@champion'")


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "said"),
    [
        ("/", None, STRANGER, 403, "none of the names"),
        (
            "/recommend",
            {"history": []},
            {"Origin": "https://evil.example"},
            403,
            "none of the names",
        ),
        ("/", None, {"Host": ""}, 403, "none of the names"),
        ("/nowhere", None, {}, 404, "there is no /nowhere"),
        ("/recommend", None, {}, 405, "does not take GET"),
        ("/recommend", b"{", {}, 400, "is not JSON"),
        ("/recommend", [{"history": []}, {"history": [7]}], {}, 422, "1.history.0"),
        ("/recommend", {"history": [], "strength": 11}, {}, 422, "strength"),
        (
            "/recommend",
            {"history": [], "preference": "quiet " * 63},
            {},
            422,
            "preference: 65 word pieces are more than",
        ),
        ("/matched", {"sentence": 7}, {}, 422, "sentence"),
        ("/matched", {"sentence": "x" * 4_001}, {}, 422, "sentence"),
    ],
)
def test_what_is_refused_is_named(asked, path, body, headers, status, said):
    found = asked[0](path, body, headers)
    assert found[0] == status
    assert said in f"{found[1]['field']}: {found[1]['problem']}"


def test_a_request_that_does_not_arrive_is_ended(asked, monkeypatch):
    ask, _ = asked
    monkeypatch.setattr(page_server, "READ_S", 0.2)
    status, found = ask("/recommend", b"{", {"Content-Length": "9"})
    assert (status, found["problem"]) == (408, "the request did not arrive within 0.2 s")
    with socket.create_connection(("127.0.0.1", ask.port), timeout=20) as drip, suppress(ConnectionError):
        for letter in b"GET / HTTP/1.1\r\nHost: localhost\r\n" * 100:
            drip.sendall(bytes([letter]))
            time.sleep(0.01)
        raise AssertionError("the connection stayed open")
    assert ask("/health")[0] == 200


def test_a_body_that_is_too_large_is_not_read(asked):
    status, found = asked[0]("/recommend", b"", {"Content-Length": str(MOST_BYTES + 1)})
    assert status == 413
    assert str(MOST_BYTES) in found["problem"]


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:8090"])
def test_this_machine_has_several_names(asked, host):
    assert asked[0]("/health", None, {"Host": host, "Origin": f"http://{host}"})[0] == 200


def test_several_data_sets_want_a_name(home, monkeypatch):
    answers = Answers(home, PageSettings())
    monkeypatch.setattr(answers, "_datasets", lambda: ["books", "shop"])
    assert answers.models({}, b"") == ["books", "shop"]
    with pytest.raises(page_server.Problem, match=r"\?dataset=<name>: books, shop"):
        answers.start({}, b"")


def test_a_data_set_without_tables_has_no_users_and_says_why(tmp_path, monkeypatch):
    speechless(monkeypatch)
    answers = Answers(Settings(home=str(tmp_path)), PageSettings(), lambda name: Registry())
    found = answers.start({"dataset": "shop"}, b"")
    assert (found["users"], found["model_version"]) == ([], "m/1")
    assert "run the stage 'sequences' first" in found["note"]


def test_a_wrong_flag_ends_with_a_sentence(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--port", "0"])
    assert "page.port is 0" in capsys.readouterr().err
