"""Requests per second of the port, beside bare clients in the same run, against an endpoint of a known latency.

``theory`` is concurrency / latency. Contenders take turns, so that other load on the machine hits all of them alike;
``cpu`` is the client's processor time per request, which other load does not change much, and 1 / cpu is the most that
one process can do.

    python -m tests.bench.bench_port --concurrency 1 8 64
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time

import httpx2
import openai

from infra.settings import LLMSettings
from pipelines.language.port import Port
from pipelines.language.requests import ChatRequest

SCHEMA = {"type": "object", "properties": {"preference": {"type": "string"}}, "required": ["preference"]}
REVIEW = "The stand is light and quiet, and it folds small enough for my bag. " * 12


def requests(count):
    return [
        ChatRequest(
            prompt_name="bench",
            prompt_version="1",
            messages=({"role": "user", "content": f"{i} {REVIEW}"},),
            max_tokens=32,
            schema=SCHEMA,
        )
        for i in range(count)
    ]


def with_port(base_url, asked, concurrency):
    llm = LLMSettings(base_url=base_url, concurrency=concurrency)
    answers = Port(llm).answer(asked)
    assert all(answer.status == "ok" for answer in answers), answers[0]


async def gathered(asked, concurrency, send):
    queue = iter(asked)

    async def work():
        for request in queue:
            await send(request)

    await asyncio.gather(*(work() for _ in range(concurrency)))


def body(request):
    schema = {"name": "bench", "schema": request.schema, "strict": True}
    return {
        "model": "m",
        "messages": list(request.messages),
        "max_tokens": request.max_tokens,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }


def with_openai(base_url, asked, concurrency):
    async def run():
        async with openai.AsyncOpenAI(base_url=base_url, api_key="k", max_retries=0) as client:
            await gathered(asked, concurrency, lambda request: client.chat.completions.create(**body(request)))

    asyncio.run(run())


def with_httpx(base_url, asked, concurrency):
    async def run():
        limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        async with httpx2.AsyncClient(limits=limits, timeout=60) as client:

            async def send(request):
                reply = await client.post(f"{base_url}/chat/completions", json=body(request))
                assert reply.json()["choices"]

            await gathered(asked, concurrency, send)

    asyncio.run(run())


CONTENDERS = {"port": with_port, "AsyncOpenAI": with_openai, "bare httpx2": with_httpx}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=4, help="length of one measurement, if the theory were met")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "tests.bench.stub_endpoint", "--latency-ms", str(arguments.latency_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            base_url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
            for contender in CONTENDERS.values():
                contender(base_url, requests(4), 2)  # imports and caches
            columns = f"{'requests/s (min-max)':>24}{'of theory':>11}{'of httpx2':>11}{'cpu':>9}"
            print(f"{'in flight':>9}  {'client':12}{columns}")
            for concurrency in arguments.concurrency:
                measure(base_url, concurrency, arguments)
        finally:
            server.terminate()


def measure(base_url, concurrency, arguments):
    theory = concurrency / arguments.latency_ms * 1000
    asked = requests(max(concurrency, round(theory * arguments.seconds)))
    rates = {name: [] for name in CONTENDERS}
    cpu = {name: [] for name in CONTENDERS}
    for _ in range(arguments.repeats):
        for name, contender in CONTENDERS.items():
            wall, used = time.perf_counter(), time.process_time()
            contender(base_url, asked, concurrency)
            rates[name].append(len(asked) / (time.perf_counter() - wall))
            cpu[name].append((time.process_time() - used) / len(asked) * 1000)
    peer = statistics.median(rates["bare httpx2"])
    for name, found in rates.items():
        rate = statistics.median(found)
        spread = f"{rate:.0f} ({min(found):.0f}-{max(found):.0f})"
        used = statistics.median(cpu[name])
        print(f"{concurrency:9d}  {name:12}{spread:>24}{rate / theory:>11.1%}{rate / peer:>11.1%}{used:>6.2f} ms")


if __name__ == "__main__":
    main()
