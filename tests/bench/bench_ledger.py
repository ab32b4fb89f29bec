"""How long a stage takes whose every request was answered before, and what committing costs beside asking.

python -m tests.bench.bench_ledger --requests 100000

A stub endpoint in a process of its own answers at a fixed latency. The first pass asks everything; the second finds all
of it in the ledger. Printed: requests a second of the first pass beside the port alone on the same endpoint, and
seconds per 10,000 requests of the second pass.
"""

import argparse
import subprocess
import sys
import tempfile
import time

from infra.settings import LLMSettings, Settings, SparkSettings, load_settings
from pipelines.language.ledger import Ledger
from pipelines.language.port import Port
from pipelines.language.requests import ChatRequest, to_json
from pipelines.spark import spark_session
from schemas.stage_request import StageRequest


def request_of(number: int) -> ChatRequest:
    """A request of about the size that a review makes."""
    messages = (
        {"role": "system", "content": "Say one thing."},
        {"role": "user", "content": f"{number} " + "word " * 60},
    )
    return ChatRequest(prompt_name="bench", prompt_version="1", messages=messages, max_tokens=20)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3, help="cached passes")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency-ms", type=float, default=50)
    given = parser.parse_args()
    stub = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.stub_endpoint", "--latency-ms", str(given.latency_ms)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert stub.stdout is not None
        measure(given, f"http://127.0.0.1:{stub.stdout.readline().strip()}/v1")
    finally:
        stub.terminate()


def measure(given: argparse.Namespace, base_url: str) -> None:
    """Both passes, and the port alone."""
    llm = LLMSettings(base_url=base_url, concurrency=given.concurrency, model="stub")
    alone = [request_of(-1 - i) for i in range(given.requests // 10)]
    with Port(llm) as port:
        started = time.monotonic()
        port.answer(alone)
        bare = len(alone) / (time.monotonic() - started)
    with tempfile.TemporaryDirectory() as home:
        spark_settings = SparkSettings(jars_dir=load_settings().spark.jars_dir, driver_memory="4g")
        settings = Settings(home=home, spark=spark_settings, llm=llm)
        spark = spark_session("bench", settings)
        request = StageRequest(stage="preferences", dataset="bench", partition="2026-01-01")
        lines = [(i, to_json(request_of(i), llm)) for i in range(given.requests)]
        for number in range(1 + given.repeats):
            frame = spark.createDataFrame(lines, "row int, request string").cache()
            frame.count()
            ledger = Ledger(spark, settings, request, "preferences")
            started = time.monotonic()
            answered = ledger.process(frame, ["row"]).where("answer.status = 'ok'").count()
            took = time.monotonic() - started
            assert answered == given.requests
            if number == 0:
                rate = given.requests / took
                print(
                    f"port alone {bare:.0f} requests/s; through the ledger {rate:.0f} ({rate / bare:.0%})", flush=True
                )
            else:
                assert ledger.usage.calls == 0
                each = took / given.requests * 1e4
                print(f"cached rerun of {given.requests:,}: {took:.1f} s, {each:.2f} s per 10,000", flush=True)


if __name__ == "__main__":
    main()
