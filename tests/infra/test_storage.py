"""Files at addresses, and leases: the same promises on a disk and in an object store."""

import json
import multiprocessing
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from infra import storage
from infra.errors import SettingError, StorageError
from infra.leases import lease


@pytest.fixture(params=["path", "s3"])
def place(request, tmp_path):
    return str(tmp_path / "state") if request.param == "path" else f"{request.getfixturevalue('bucket')}/state"


def test_a_file_is_written_read_listed_and_removed(place):
    one = storage.join(place, "a", "b", "one.json")
    assert storage.tagged(one) == (None, storage.ABSENT)
    assert storage.read(one) is None
    assert not storage.exists(one)
    assert storage.names(storage.parent_of(one)) == storage.below(place) == []
    storage.remove(one)
    storage.write(one, b"1")
    storage.write(one, b"22")
    storage.write(storage.join(place, "a", "two.txt"), b"333")
    assert storage.read(one) == b"22"
    assert storage.exists(one)
    assert [found[:2] for found in storage.below(place)] == [("a/b/one.json", 2), ("a/two.txt", 3)]
    assert all(abs(found.modified - time.time()) < 60 for found in storage.below(place))
    assert storage.names(storage.join(place, "a")) == ["two.txt"]
    assert storage.names(storage.join(place, "a"), ".json") == []
    assert storage.names(storage.join(place, "a", "b"), ".json") == ["one.json"]
    storage.remove(one)
    assert [found.name for found in storage.below(place)] == ["a/two.txt"]
    storage.remove_below(place)
    storage.remove_below(place)
    assert storage.below(place) == []


def test_spark_s_scheme_is_the_same_place(bucket):
    storage.write(f"{bucket}/one", b"1")
    assert storage.read(f"{bucket.replace('s3:', 's3a:')}/one") == b"1"


def test_a_swap_needs_the_newest_tag(place):
    one = storage.join(place, "one")
    first = storage.swap(one, b"1", storage.ABSENT)
    assert storage.tagged(one) == (b"1", first)
    assert storage.swap(one, b"2", storage.ABSENT) is None
    second = storage.swap(one, b"2", first)
    assert second not in (None, first)
    assert storage.swap(one, b"3", first) is None
    assert storage.read(one) == b"2"
    assert storage.swap(one, b"2", first) is None, "somebody else wrote the same"
    storage.remove(one)
    assert storage.swap(one, b"3", second) is None, "a removed file is not brought back"


class Outage:
    """A store between us and the real one that carries requests out, or not, and answers 503."""

    def __init__(self, server, fails, carries_out):
        self.fails, self.seen = fails, 0
        outage = self

        class Handler(BaseHTTPRequestHandler):
            def do(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                failing = self.command == "PUT" and outage.seen < outage.fails
                outage.seen += self.command == "PUT"
                if failing and not carries_out:
                    return self.answer(503, {}, b"")
                wanted = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length")}
                wanted["Content-Type"] = "application/octet-stream"  # urllib would call it a form
                given = urllib.request.Request(server + self.path, body or None, wanted, method=self.command)
                try:
                    with urllib.request.urlopen(given) as found:
                        status, headers, content = found.status, found.headers, found.read()
                except urllib.error.HTTPError as error:
                    status, headers, content = error.code, error.headers, error.read()
                return self.answer(503, {}, b"") if failing else self.answer(status, headers, content)

            def answer(self, status, headers, content):
                self.send_response_only(status)
                for name in ("ETag", "Last-Modified", "Content-Type"):
                    if name in headers:
                        self.send_header(name, headers[name])
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do  # noqa: N815

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_port}"


@pytest.mark.parametrize("carries_out", [True, False])
def test_a_swap_survives_an_outage_and_counts_once(s3_server, bucket, monkeypatch, carries_out):
    storage.write(f"{bucket}/one", b"1")
    _, tag = storage.tagged(f"{bucket}/one")
    outage = Outage(s3_server, 3, carries_out)
    monkeypatch.setenv("AWS_ENDPOINT_URL", outage.address)
    storage._store.cache_clear()
    try:
        found = storage.swap(f"{bucket}/one", b"2 by me", tag)
        assert storage.tagged(f"{bucket}/one") == (b"2 by me", found)
        assert outage.seen == 4 if not carries_out else outage.seen >= 4
        storage.write(f"{bucket}/two", b"2")
    finally:
        outage.http.shutdown()
        outage.http.server_close()
        storage._store.cache_clear()


def test_changes_of_many_writers_all_count(tmp_path):
    one = str(tmp_path / "count")

    def add(_):
        for _ in range(25):
            storage.change(one, lambda content: str(int(content or b"0") + 1).encode())

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(add, range(4)))
    assert storage.read(one) == b"100"


def test_a_change_that_is_overtaken_is_made_again(place):
    one, seen = storage.join(place, "one"), []

    def make(content):
        seen.append(content)
        if len(seen) == 1:
            storage.write(one, b"other")
        return (content or b"") + b"+"

    assert storage.change(one, make) == b"other+"
    assert seen == [None, b"other"]
    assert storage.change(one, lambda content: None) == b"other+"
    with pytest.raises(StorageError, match="200 times in a row"):
        storage.change(one, lambda content: (storage.write(one, content + b"!"), content + b"+")[1])


def test_an_artifact_is_complete_or_not_there(place):
    folder = storage.join(place, "bundle")
    with storage.new_folder(folder, "last.json") as made:
        (made / "weights").write_bytes(b"1" * 1000)
        (made / "last.json").write_text("{}")
    with storage.local_copy(folder) as copy:
        assert sorted(path.name for path in copy.iterdir()) == ["last.json", "weights"]
        assert (copy / "weights").read_bytes() == b"1" * 1000
    with suppress(ZeroDivisionError), storage.new_folder(folder, "last.json") as made:
        (made / "weights").write_bytes(b"2")
        raise ZeroDivisionError
    if not storage.is_local(place):
        assert storage.read(storage.join(folder, "weights")) == b"1" * 1000
        assert not copy.exists()
    with storage.new_folder(folder, "last.json") as made:
        (made / "last.json").write_text("[]")
    assert storage.read(storage.join(folder, "last.json")) == b"[]"


def test_the_last_file_of_an_artifact_is_written_last(bucket, monkeypatch):
    done = []

    def noted(name):
        real = getattr(storage, name)
        return lambda address, *given: (done.append((name, address)), real(address, *given))

    monkeypatch.setattr(storage, "remove", noted("remove"))
    monkeypatch.setattr(
        storage,
        "_send",
        lambda path, address, send=storage._send: (done.append(("write", address)), send(path, address)),
    )
    for _ in range(2):
        with storage.new_folder(f"{bucket}/bundle", "a.json") as made:
            for name in ("a.json", "b", "c"):
                (made / name).write_text(name)
    one = [("remove", "a.json"), ("write", "b"), ("write", "c"), ("write", "a.json")]
    assert [(what, storage.name_of(address)) for what, address in done] == one * 2


def test_errors_name_the_address_and_what_to_check(bucket, monkeypatch):
    with pytest.raises(StorageError, match=r"s3://no-such-bucket-1/x cannot be reached .*AWS_ENDPOINT_URL"):
        storage.write("s3://no-such-bucket-1/x", b"1")
    with pytest.raises(SettingError, match="ftp://host/x"):
        storage.read("ftp://host/x")


def test_one_holder_at_a_time(place):
    address, inside, most, fences = storage.join(place, "locks", "one"), [0], [0], []

    def section(_):
        with lease(address, ttl_s=5) as held:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.05)
            inside[0] -= 1
            fences.append(held.fence)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(section, range(6)))
    assert most == [1]
    assert len(fences) == 6
    if not storage.is_local(place):
        assert len(set(fences)) == 6, "fences are unique"


def test_who_does_not_wait_is_told_that_the_lock_is_held(place):
    address = storage.join(place, "one")
    with lease(address, ttl_s=1.0) as held:
        with lease(address, wait=False, ttl_s=1.0) as other:
            assert other is None
        held.check()
    with lease(address, wait=False, ttl_s=1.0) as other:
        assert other is not None


def _hold_and_die(address, holds):
    with lease(address, ttl_s=1.0):
        holds.set()
        time.sleep(60)


def test_the_lock_of_a_killed_holder_is_taken_over(place):
    address, context = storage.join(place, "one"), multiprocessing.get_context("spawn")
    holds = context.Event()
    process = context.Process(target=_hold_and_die, args=(address, holds))
    process.start()
    assert holds.wait(60)
    with lease(address, wait=False, ttl_s=1.0) as held:
        assert held is None
    process.kill()
    process.join()
    with lease(address, ttl_s=1.0) as held:
        assert held is not None


def test_a_holder_that_was_taken_over_notices(bucket):
    address = f"{bucket}/one"
    with lease(address, ttl_s=0.6) as held:
        storage.write(address, json.dumps({"owner": "other", "fence": held.fence + 1, "ttl": 0.6}).encode())
        until = time.monotonic() + 10
        while not held._lost.is_set() and time.monotonic() < until:
            time.sleep(0.05)
        with pytest.raises(StorageError, match="was lost"):
            held.check()
    assert json.loads(storage.read(address))["owner"] == "other", "and leaves the lease of the other alone"
