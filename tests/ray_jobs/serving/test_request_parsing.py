import pytest

from infra.errors import SettingError
from infra.settings import load_settings
from ray_jobs.serving.__main__ import main
from ray_jobs.serving.parsing import RecommendRequest, RequestError, parse
from ray_jobs.serving.settings import ServingSettings
from schemas.sections import stage_settings


def test_one_request_or_a_list():
    assert parse(b'{"history": ["a"]}') == RecommendRequest(
        {"history": ("a",), "strength": 1.0}, k=10, exclude_seen=True
    )
    body = b' [{"history": [], "preference": "Jazz", "k": 3, "exclude_seen": false}, {"history": ["a"], "times": [5]}]'
    assert parse(body) == [
        RecommendRequest({"history": (), "preference": "Jazz", "strength": 1.0}, k=3, exclude_seen=False),
        RecommendRequest({"history": ("a",), "strength": 1.0, "times": (5,)}),
    ]
    assert parse(b"[]") == []


@pytest.mark.parametrize(
    ("body", "status", "field", "words"),
    [
        (b"", 400, "", "not JSON"),
        (b'{"history": ["a"', 400, "", "not JSON"),
        (b"7", 422, "", "7 was given"),
        (b"{}", 422, "history", "required"),
        (b'{"history": "a"}', 422, "history", '"a" was given'),
        (b'{"history": ["a", 7]}', 422, "history.1", "string; 7 was given"),
        (b'{"history": ["a"], "preference": 3}', 422, "preference", "3 was given"),
        (b'{"history": ["a"], "k": 0}', 422, "k", "greater than or equal to 1"),
        (b'{"history": ["a"], "k": true}', 422, "k", "true was given"),
        (b'{"history": ["a"], "exclude_seen": "no"}', 422, "exclude_seen", '"no" was given'),
        (b'{"history": ["a"], "times": [1, 2]}', 422, "times", "2 times came for 1 items"),
        (b'{"history": ["a"], "top": 3}', 422, "top", "not permitted"),
        (b'[{"history": ["a"]}, {"history": ["a"], "k": 10.5}]', 422, "1.k", "10.5 was given"),
        (b"[" + b",".join([b'{"history": []}'] * 1001) + b"]", 422, "", "at most 1000 items"),
        (b"[" + b",".join([b'{"history": [], "k": 1000}'] * 21) + b"]", 422, "", "21000 items together"),
        (b"[" * 100_000, 400, "", "recursion limit"),
    ],
)
def test_what_is_wrong_is_named(body, status, field, words):
    with pytest.raises(RequestError) as refused:
        parse(body)
    assert (refused.value.status, refused.value.field) == (status, field)
    assert words in refused.value.problem
    assert len(refused.value.problem) < 250


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"replicas": 0}, "serving.replicas is 0"),
        ({"poll_s": 0}, "serving.poll_s is 0"),
        ({"batch_wait_ms": -1}, "serving.batch_wait_ms is -1"),
        ({"queue": 8}, "serving.queue is 8, below serving.max_batch_size 16"),
        ({"read_s": float("nan")}, "serving.read_s is nan"),
        ({"most_bytes": 0}, "serving.most_bytes is 0"),
        ({"per_client": -1}, "serving.per_client is -1"),
        ({"hosts": ()}, "serving.hosts is \\[\\]"),
        ({"token": "with space"}, "serving.token has characters that a header cannot contain"),
    ],
)
def test_settings_that_cannot_work(changes, words):
    with pytest.raises(SettingError, match=words):
        ServingSettings(**changes)


@pytest.mark.parametrize("token", ["open-sesame", "12345", "true", "0x10"])
def test_a_token_comes_from_the_environment_and_never_from_a_command_line(monkeypatch, capsys, token):
    monkeypatch.setenv("PENCHANT_STAGES__SERVING__TOKEN", token)
    chosen = stage_settings(ServingSettings, load_settings())
    assert chosen.token == token
    assert token not in repr(chosen)
    with pytest.raises(SystemExit):
        main(["--dataset", "shop", "--token", token])
    assert "unrecognized arguments: --token" in capsys.readouterr().err


def test_hosts_are_a_flag_of_several_names(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--hosts HOSTS [HOSTS ...]" in capsys.readouterr().out
