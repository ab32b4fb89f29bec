"""Downloads over real sockets: dropped connections, corrupted bytes, servers without ranges."""

import gzip
import hashlib
import http.server
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.settings import Settings
from pipelines.tools.download import DownloadSettings, addresses, download, fetch
from schemas.dataset import Dataset
from schemas.errors import DataError

QUICK = DownloadSettings(attempts=3, backoff_s=0.01, timeout_s=5)


class _Server:
    """Serves `files`; `faults` are consumed one per request: an int cuts the body after so many bytes, a status
    code name ``"503"`` refuses, ``"flip"`` corrupts a byte, ``"whole"`` ignores the range."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: list[int | str] = []
        self.requests: list[tuple[str, str | None]] = []
        self.length = True
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                ranged = self.headers.get("Range")
                outer.requests.append((self.path, ranged))
                fault = outer.faults.pop(0) if outer.faults else None
                if self.path not in outer.files or fault == "503":
                    self.send_error(503 if fault == "503" else 404)
                    return
                body = outer.files[self.path]
                etag = f'"{hashlib.sha256(body).hexdigest()[:8]}"'
                start = 0
                if ranged and fault != "whole" and self.headers.get("If-Range", etag) == etag:
                    start = int(ranged.removeprefix("bytes=").removesuffix("-"))
                    if start >= len(body):
                        self.send_error(416)
                        return
                self.send_response(206 if start else 200)
                self.send_header("ETag", etag)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                if outer.length:
                    self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                body = body[start:]
                if fault == "flip":
                    middle = len(body) // 2
                    body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
                self.wfile.write(body[:fault] if isinstance(fault, int) else body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[_Server]:
    one = _Server()
    yield one
    one.close()


@pytest.fixture
def body(server: _Server) -> bytes:
    """A gzip file of about 600 kB, more than one chunk."""
    data = gzip.compress(random.Random(1).randbytes(600_000), mtime=0)
    server.files["/f.gz"] = data
    return data


def test_a_dropped_connection_resumes_where_it_stopped(server, body, tmp_path: Path):
    server.faults = [250_000, 100_000]
    seen: list[tuple[int, int | None]] = []
    digest = fetch(f"{server.base}/f.gz", tmp_path / "f.gz", QUICK, progress=lambda *state: seen.append(state))
    assert (tmp_path / "f.gz").read_bytes() == body
    assert digest == hashlib.sha256(body).hexdigest()
    assert [ranged for _, ranged in server.requests] == [None, "bytes=250000-", "bytes=350000-"]
    assert seen[-1] == (len(body), len(body))
    assert (tmp_path / "f.gz.sha256").read_text() == f"{digest}  f.gz\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.gz", "f.gz.sha256"]


def test_another_process_resumes_and_a_finished_file_is_not_asked_again(server, body, tmp_path: Path):
    server.faults = [200_000, "503", "503", "503"]
    with pytest.raises(DataError, match=r"503 .*3 times without a new byte.*start the same command again"):
        fetch(f"{server.base}/f.gz", tmp_path / "f.gz", QUICK)
    assert not (tmp_path / "f.gz").exists()
    assert (tmp_path / "f.gz.part").stat().st_size == 200_000
    server.requests.clear()
    fetch(f"{server.base}/f.gz", tmp_path / "f.gz", QUICK)
    assert server.requests == [("/f.gz", "bytes=200000-")]
    fetch(f"{server.base}/f.gz", tmp_path / "f.gz", QUICK)
    assert len(server.requests) == 1
    assert (tmp_path / "f.gz").read_bytes() == body


def test_a_file_that_changed_on_disk_is_fetched_again(server, body, tmp_path: Path):
    path = tmp_path / "f.gz"
    fetch(f"{server.base}/f.gz", path, QUICK)
    path.write_bytes(body[:-9] + b"corrupted")
    fetch(f"{server.base}/f.gz", path, QUICK)
    assert path.read_bytes() == body
    assert len(server.requests) == 2


def test_a_file_that_changed_at_the_source_is_not_glued_to_the_old_one(server, body, tmp_path: Path):
    server.faults = [200_000, "503", "503", "503"]
    with pytest.raises(DataError, match="without a new byte"):
        fetch(f"{server.base}/f.gz", tmp_path / "f.gz", QUICK)
    server.files["/f.gz"] = gzip.compress(b"a new release" * 1000, mtime=0)
    fetch(f"{server.base}/f.gz", tmp_path / "f.gz", QUICK)
    assert (tmp_path / "f.gz").read_bytes() == server.files["/f.gz"]


def test_a_server_that_ignores_ranges_is_read_from_the_start(server, body, tmp_path: Path):
    server.faults = [200_000, "whole"]
    fetch(f"{server.base}/f.gz", tmp_path / "f.gz", QUICK)
    assert (tmp_path / "f.gz").read_bytes() == body


def test_an_unknown_size_is_covered_by_the_gzip_checksum(server, body, tmp_path: Path):
    server.length = False
    server.faults = [300_000]
    fetch(f"{server.base}/f.gz", tmp_path / "f.gz", QUICK)
    assert (tmp_path / "f.gz").read_bytes() == body


def test_corrupted_bytes_never_take_the_name(server, body, tmp_path: Path):
    server.faults = ["flip"]
    fetch(f"{server.base}/f.gz", tmp_path / "f.gz", QUICK)
    assert (tmp_path / "f.gz").read_bytes() == body
    assert len(server.requests) == 2
    server.faults = ["flip", "flip"]
    with pytest.raises(DataError, match=r"gzip checksum fails.*twice in a row"):
        fetch(f"{server.base}/f.gz", tmp_path / "g.gz", QUICK)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.gz", "f.gz.sha256"]


def test_a_wrong_category_is_said_at_once(server, tmp_path: Path):
    with pytest.raises(DataError, match=r"404 .*check the category's spelling"):
        fetch(f"{server.base}/absent.gz", tmp_path / "f.gz", QUICK)
    assert len(server.requests) == 1


def test_no_server_is_a_clear_error(server, tmp_path: Path):
    server.close()
    with pytest.raises(DataError, match=r"Connection refused.*PENCHANT_STAGES__DOWNLOAD__AMAZON_2023"):
        fetch(f"{server.base}/f.gz", tmp_path / "f.gz", QUICK)


def test_sources_name_both_files():
    reviews, items = addresses("amazon-2023:Musical_Instruments", DownloadSettings())
    assert reviews.endswith("/amazon_2023/raw/review_categories/Musical_Instruments.jsonl.gz")
    assert items.endswith("/amazon_2023/raw/meta_categories/meta_Musical_Instruments.jsonl.gz")
    for wrong in ("amazon-2023", "amazon-2023:../x", "netflix:all"):
        with pytest.raises(DataError, match="write amazon-2023:<category>"):
            addresses(wrong, DownloadSettings())


def test_a_data_set_is_fetched_and_registered(server, tmp_path: Path, monkeypatch):
    review = {"user_id": "u", "parent_asin": "i", "rating": 5.0, "timestamp": 1393545600000, "title": "", "text": ""}
    for path, record in (("review_categories/Toys", review), ("meta_categories/meta_Toys", {"parent_asin": "i"})):
        server.files[f"/{path}.jsonl.gz"] = gzip.compress(json.dumps(record).encode() + b"\n")
    monkeypatch.setenv("PENCHANT_STAGES__DOWNLOAD__AMAZON_2023", server.base)
    settings = Settings(home=str(tmp_path / "home"))
    dataset = download("amazon-2023:Toys", tmp_path / "landing", settings)
    assert dataset == Dataset.load(settings.datasets_dir(), "amazon-2023-toys")
    assert dataset.format == "amazon-2023"
    assert Path(dataset.reviews).name == "Toys.jsonl.gz"
    assert Path(dataset.items or "").name == "meta_Toys.jsonl.gz"
