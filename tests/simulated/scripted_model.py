"""A language model without errors for a planted world: ``python -m tests.simulated.scripted_model``.

An OpenAI-compatible HTTP server on loopback that answers the project's prompts from the world's truth, which separates
the losses of a stage from the errors of a model. Titles are scored in both ways of `pipelines.language.scoring`:
llama.cpp's token grammar, and completions with echo.
"""

import argparse
import json
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from infra.errors import UserError
from pipelines.landing.planted_world.truth import read_truth
from tests.background import in_background
from tests.simulated.perfect_reader import NEUTRAL, PerfectReader

_REVIEW = re.compile(r"(?P<stars>[\d.]+) stars: (?P<text>.*)", re.DOTALL)
_FOLD = re.compile(r"Known: (?P<known>.*)\nNew: (?P<new>.*)", re.DOTALL)
_FORCED = re.compile(r"<\[(\d+)\]>")
_LISTED = re.compile(r"^- (.+)$", re.MULTILINE)
_WORD = re.compile(r"\s*\S+")


class NotUnderstood(Exception):
    """The request contains none of the project's prompts."""


class ScriptedModel(ThreadingHTTPServer):
    """The server, on 127.0.0.1.

    Args:
        port: 0 takes a free one.
        latency_s: delay of every answer of the model.

    Attributes:
        calls: requests so far, by path.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, reader: PerfectReader, port: int = 0, latency_s: float = 0.0) -> None:
        self.reader = reader
        self.latency_s = latency_s
        self.calls: dict[str, int] = {}
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def base_url(self) -> str:
        """The address for ``llm.base_url``."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request.

        Raises:
            NotUnderstood: the path or the prompt is unknown.
        """
        if path == "/tokenize":
            return {"tokens": [ord(character) for character in body["content"]]}
        if path == "/completion":
            return self._forced(body["prompt"], body.get("grammar", ""))
        if path == "/v1/completions":
            return self._echoed(body)
        if path == "/v1/chat/completions":
            schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
            both = "prefers" in schema.get("properties", {})
            return _chat(self._chat_answer(body["messages"][-1]["content"], both), str(body.get("model", "")))
        raise NotUnderstood(f"no such path: {path}")

    def _chat_answer(self, prompt: str, both: bool) -> dict[str, Any]:
        if fold := _FOLD.fullmatch(prompt):
            return {"summary": self.reader.summary(fold["known"], fold["new"])}
        if (review := _REVIEW.fullmatch(prompt)) and both:
            return self.reader.opinions(review["text"])
        if review:
            return {"preference": self.reader.preference(float(review["stars"]), review["text"])}
        raise NotUnderstood(f"neither a review nor a fold: {prompt[:80]!r}")

    def _forced(self, prompt: str, grammar: str) -> dict[str, Any]:
        """llama.cpp's /completion under a grammar of token ids; a token is a character."""
        forced = [int(token) for token in _FORCED.findall(grammar)]
        if not forced:
            raise NotUnderstood("/completion is answered under a grammar of token ids only")
        text = "".join(map(chr, forced))
        each = self.reader.title(_LISTED.findall(prompt), text.strip())
        steps = [{"id": token, "token": chr(token), "logprob": each} for token in forced]
        return {"content": text, "completion_probabilities": steps, "tokens_evaluated": len(prompt)}

    def _echoed(self, body: dict[str, Any]) -> dict[str, Any]:
        """A completion with echo; a token is a word with the space before it. The title is the last listed."""
        if not body.get("echo"):
            raise NotUnderstood("/v1/completions is answered with echo only")
        text = body["prompt"]
        *others, title = _LISTED.findall(text) or [""]
        start = len(text) - len(title)
        each = self.reader.title(others, title)
        found = list(_WORD.finditer(text))
        logprobs = [each if match.end() > start else NEUTRAL for match in found]
        choice = {
            "index": 0,
            "text": text + ".",
            "finish_reason": "length",
            "logprobs": {
                "tokens": [*(match.group() for match in found), "."],
                "text_offset": [*(match.start() for match in found), len(text)],
                "token_logprobs": [None, *logprobs[1:], NEUTRAL],
                "top_logprobs": None,
            },
        }
        return _envelope("text_completion", choice, str(body.get("model", "")), len(found), 1)


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedModel
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes, which Nagle's algorithm would keep 40 ms apart.
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.calls[self.path] = self.server.calls.get(self.path, 0) + 1
        try:
            status, answer = 200, self.server.answer(self.path, body)
        except (NotUnderstood, KeyError) as error:
            status, answer = 400, {"error": {"message": f"{type(error).__name__}: {error}", "type": "bad_request"}}
        if self.path != "/tokenize":
            time.sleep(self.server.latency_s)
        payload = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


def _chat(answer: dict[str, Any], model: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": json.dumps(answer), "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return _envelope("chat.completion", choice, model, 1, 1)


def _envelope(kind: str, choice: dict[str, Any], model: str, prompt: int, completion: int) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"id": "scripted", "object": kind, "created": 0, "model": model, "choices": [choice], "usage": usage}


@contextmanager
def serving(truth_folder: Path, port: int = 0, latency_s: float = 0.0) -> Iterator[ScriptedModel]:
    """Run a server for the truth in a folder, in a thread, until the block ends."""
    server = ScriptedModel(PerfectReader(read_truth(truth_folder)), port, latency_s)
    with in_background(server):
        yield server


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until Ctrl-C; the first line printed is the address for ``PENCHANT_LLM__BASE_URL``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, required=True, help="folder truth/ of the world")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="delay of every answer")
    given = parser.parse_args(argv)
    try:
        with serving(given.truth, given.port, given.latency_ms / 1000) as server:
            sys.stdout.write(f"{server.base_url}\n")
            sys.stdout.flush()
            threading.Event().wait()
    except (UserError, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
