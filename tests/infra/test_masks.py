"""A secret in each setting, and every way in which a process tells something."""

import json
import logging
import os
import subprocess
import sys

import pytest

from infra import masks
from infra.alerts import Alert, deliver
from infra.settings import REPOSITORY, Settings, secrets_of
from pipelines.language.endpoint_errors import judge
from pipelines.language.errors import EndpointError
from pipelines.language.port import Port
from pipelines.language.requests import Answer, ChatRequest, to_json

PLANTED = {
    "PENCHANT_LLM__API_KEY": "sk-planted-llm-key",
    "PENCHANT_LLM__EXTRA_BODY": '{"metadata": {"api_key": "planted-in-the-body"}}',
    "PENCHANT_ALERTS__WEBHOOK_URL": "https://hooks.example.org/services/T00/planted-webhook-path",
    "PENCHANT_ALERTS__SMTP_PASSWORD": "planted-smtp-word",
    "PENCHANT_LINEAGE__URL": "http://me:planted%2Furl-word@127.0.0.1:9/lineage",
    "PENCHANT_LINEAGE__API_KEY": "planted-lineage-key",
    "PENCHANT_MLFLOW__TRACKING_URI": "http://me:planted-mlflow-word@127.0.0.1:9",
    "PENCHANT_SPARK__EXTRA_CONF": json.dumps(
        {
            "spark.hadoop.fs.s3a.secret.key": 'planted-"s3"-secret',
            "spark.hadoop.fs.s3a.session.token": "planted-s3-token",
            "spark.hadoop.fs.azure.account.key.x": "planted-azure-key",
        }
    ),
    "AWS_SECRET_ACCESS_KEY": "planted-aws-key",
    "MLFLOW_TRACKING_PASSWORD": "planted-registry-word",
    "PENCHANT_WEBHOOK_SECRET": "planted-hook-secret",
}
TELLS = """
import json, logging, sys
from infra.errors import UserError
from infra.settings import load_settings
from schemas.handoff import StageReport
from schemas.stage_runner import run_stage

def tell(request):
    settings = load_settings()
    everything = json.dumps(settings.model_dump(), default=str) + repr(settings)
    import os
    everything += " ".join(os.environ[name] for name in os.environ if name in sys.argv[1].split(","))
    logging.basicConfig()
    logging.getLogger("x").warning("said %s", everything)
    print("printed", everything)
    print("printed", everything, file=sys.stderr)
    try:
        raise RuntimeError(everything)
    except RuntimeError:
        logging.getLogger("x").exception("caught")
    if sys.argv[2] == "raise":
        raise RuntimeError(everything)
    if sys.argv[2] == "refuse":
        raise UserError(everything)
    return StageReport(stage="s", status="done", outputs={"said": everything})

run_stage("ingest", tell, ["--dataset=d", "--partition=2026-01-31", f"--report-uri={sys.argv[3]}"])
"""


def planted(monkeypatch):
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    return Settings()


def shows(text):
    return [word for word in ("planted", "T00") if word in text]


def test_what_is_secret_is_known_by_its_name_in_each_setting(monkeypatch):
    found = {value for value in secrets_of(planted(monkeypatch)) if shows(value)}
    assert len({value for value in found if not value.startswith("http")}) == 11  # one word twice, as sent and as read


@pytest.mark.parametrize("ends", ["well", "refuse", "raise"])
def test_no_way_out_of_a_stage_shows_a_secret(tmp_path, ends):
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-c", TELLS, ",".join(PLANTED), ends, str(report)],
        env={**os.environ, **PLANTED, "PENCHANT_HOME": str(tmp_path)},
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == {"well": 0, "refuse": 2, "raise": 1}[ends], done.stderr
    said = [done.stdout, done.stderr, *(path.read_text() for path in tmp_path.iterdir())]
    assert "printed" in said[0]
    assert "said {" in said[1]
    assert "caught" in said[1]
    assert len(said) == (2 if ends == "raise" else 3)
    for text in said:
        assert masks.MASK in text
        assert not shows(text)


def test_an_endpoint_that_repeats_the_key_tells_no_journal_no_table_and_no_message(monkeypatch):
    llm = planted(monkeypatch).llm.model_copy(update={"base_url": "http://me:planted-url-word@127.0.0.1:9/v1"})
    Port(llm)
    said = f"Incorrect API key provided: {llm.api_key} at {llm.base_url}"
    with pytest.raises(EndpointError) as refused:
        judge(llm, 401, {"message": said})
    answers = Answer(status="malformed", text=f"key {llm.api_key}, see http://a@b/", error=said)
    request = ChatRequest(prompt_name="p", prompt_version="1", messages=(), max_tokens=1)
    for text in (str(refused.value), answers.text, answers.error, to_json(request, llm)):
        assert masks.MASK in text
        assert not shows(text)
    assert "refuses the key in llm.api_key" in str(refused.value)
    assert "http://***@127.0.0.1:9/v1" in str(refused.value)
    assert answers.text == "key ***, see http://a@b/", "somebody's words are theirs but for the key"


def test_a_password_in_the_address_of_the_model_is_refused_without_being_shown(tmp_path):
    given = {"PENCHANT_LLM__BASE_URL": "http://me:planted-url-word@127.0.0.1:9/v1", "PENCHANT_HOME": str(tmp_path)}
    code = "from infra.settings import load_settings; load_settings()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **given}, cwd=REPOSITORY, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert "llm.base_url contains a password, so no key can be sent: use llm.api_key" in done.stderr
    assert not shows(done.stderr)


def test_alerts_carry_no_secret_and_their_failure_names_none(monkeypatch):
    settings = planted(monkeypatch).alerts.model_copy(
        update={"webhook_url": "http://127.0.0.1:9/planted-webhook-path", "timeout_s": 1}
    )
    masks.hide(["planted-smtp-word", "planted-webhook-path"])
    (problem,) = deliver(Alert(event="run_failed", subject="planted-smtp-word", text="t"), settings)
    assert not shows(problem)


def test_ordinary_words_stay(monkeypatch):
    before = masks.hidden()
    masks.hide(["local", "short", "", "  "])
    assert masks.hidden() == before
    text = 'llm.max_tokens 300, {"tokenizers": "rqvae"}, s3://bucket/key, mail a@b.example, http://host/@user'
    assert masks.masked(text) == text
    assert (
        list(masks.secrets_in({"max_tokens": "12345678", "RAY_AUTH_TOKEN_PATH": "/home/x/y", "tokenizer": "rqkmeans"}))
        == []
    )
    assert masks.without_secrets({"top_k": 5, "auth": {"token": "abc"}}) == {"top_k": 5, "auth": {"token": "***"}}


def test_a_record_keeps_its_arguments_where_nothing_is_hidden():
    masks.hide(["planted-for-records"])
    make = logging.getLogRecordFactory()
    assert make("n", 20, "p", 1, "%d of %s", (3, "x"), None).args == (3, "x")
    assert make("n", 20, "p", 1, "%s", ("planted-for-records",), None).getMessage() == "***"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spark.hadoop.fs.s3a.secret.key", "/Abc+defGHIjklmnopqrstuv"),
        ("AWS_SECRET_ACCESS_KEY", "/abcDEFgh12345/sdfsdf"),
        *(
            (name, "abcdefgh12345")
            for name in (
                "fs.gs.auth.service.account.private.key", "spark.hadoop.fs.s3a.encryption.key", "MY_PWD", "DB_PASS",
                "AUTHORIZATION", "LINEAGE_AUTH", "signing_key", "cookie", "AZURE_STORAGE_CONNECTION_STRING",
                "X_API_TOKENS", "GOOGLE_KEY",
            )
        ),
        ("base_url", "https://gw.example/v1?api_key=abcdefgh12345"),
        ("url", "jdbc:postgresql://h/db?user=u&password=abcdefgh12345"),
        ("webhook", "https://chat.example/v1/messages?key=abcdefgh12345&token=tok123tok123"),
        ("conn", "DefaultEndpointsProtocol=https;AccountKey=abcdefgh12345=="),
        ("url", "http://u:p@ssword1@host"),
        ("url", "http://u:pa/ssword1@host"),
    ],
)  # fmt: skip
def test_a_secret_is_known_by_its_name_in_whatever_it_stands(name, value):
    found = list(masks.secrets_in({name: value}))
    assert found
    assert list(masks.secrets_in({"extra_body": {"provider": [{name: value}, [{name: [value]}]]}})) == found * 2
    if "://" in value:
        for secret in found:
            assert secret not in masks.masked(f"cannot reach {value}")
    else:
        assert _is_left_out(masks.without_secrets({"in": [{name: value}]}), found)


def _is_left_out(told, found):
    value = next(iter(told["in"][0].values()))
    return value == masks.MASK or found[0] in value


def test_what_says_where_or_how_many_is_no_secret():
    plain = {
        "PWD": "/home/me/work", "GOOGLE_APPLICATION_CREDENTIALS": "/home/Me/key.json", "primary_key": "timestamp",
        "TOKEN_AT": "/run/secrets/token", "prompt_tokens": "12345678", "stop_tokens": ["<|im_end|>"],
        "keyboard": "abcdefghi", "AWS_ACCESS_KEY_ID": "bucket-owner",
        "address": "s3a://bucket/shop/items?versionId=3&max_tokens=300", "image": "http://host:8080/@user",
    }  # fmt: skip
    assert list(masks.secrets_in(plain)) == []
    assert masks.without_secrets(plain) == plain
    for text in map(str, plain.values()):
        assert masks.masked(text) == text


def test_a_short_password_is_hidden_as_itself_and_not_in_words():
    masks.hide_short(masks.short_passwords_in({"smtp_password": "p4ss", "old_password": "shop", "api_key": "local"}))
    assert masks.masked('smtp_password=\'p4ss\', p4ssion, "smtp_password": "shop", the shop is local') == (
        'smtp_password=\'***\', p4ssion, "smtp_password": "***", the shop is local'
    )


def test_a_password_with_marks_of_addresses_is_left_out_of_addresses():
    for address in ("http://u:p@ss@host/x", "http://u:pa/ss1@host/x", "redis://:pw@host/x"):
        assert masks.masked(f"at {address}") == f"at {address.partition('://')[0]}://***@host/x"
