"""Fetch a public data set: ``penchant download amazon-2023:Musical_Instruments --out DIR``.

A broken download resumes where it stopped. A file is checked (size, gzip checksum) before it gets its name. Its SHA-256
is recorded beside it and checked when the file is used again.
"""

import argparse
import contextlib
import gzip
import hashlib
import http.client
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from infra.bounds import Bounded, Count, NonNegative, Positive
from infra.commands.terminal import command
from infra.progress import Progress
from infra.settings import Settings, load_settings
from infra.state import write_json, write_text
from pipelines.tools.register import register
from schemas.dataset import Dataset
from schemas.errors import DataError
from schemas.sections import stage_settings

_CHUNK = 1 << 18
_RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True)
class DownloadSettings(Bounded):
    """Where public data sets come from, and how often a download is tried.

    Args:
        amazon_2023: base address of the raw files of Amazon Reviews 2023 (Hou et al. 2024, arXiv:2403.03952), as its
            publishers, the McAuley Lab, serve them.
        attempts: consecutive tries without a new byte before it gives up.
        backoff_s: pause after the first failure; doubled each time, at most a minute.
        timeout_s: seconds without a byte after which a connection is closed.
    """

    section: ClassVar[str] = "download"

    amazon_2023: str = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw"
    attempts: Count = 6
    backoff_s: NonNegative = 2.0
    timeout_s: Positive = 60.0


def addresses(source: str, settings: DownloadSettings) -> tuple[str, str]:
    """Addresses of the review file and the item file of a source such as ``amazon-2023:Musical_Instruments``.

    Raises:
        DataError: the source has another form.
    """
    match = re.fullmatch(r"amazon-2023:(?P<category>[A-Za-z0-9_]+)", source)
    if not match:
        raise DataError(
            f"{source!r} is no known source; write amazon-2023:<category>, e.g. amazon-2023:Musical_Instruments"
        )
    base, category = settings.amazon_2023.rstrip("/"), match["category"]
    return f"{base}/review_categories/{category}.jsonl.gz", f"{base}/meta_categories/meta_{category}.jsonl.gz"


def fetch(
    url: str,
    path: Path,
    settings: DownloadSettings,
    progress: Callable[[int, int | None], None] | None = None,
) -> str:
    """Download `url` to `path`, or keep the file there where its checksum matches.

    Until it is complete, the bytes are in ``<path>.part`` beside a note of their origin, so that the next try, also of
    another process, requests only the rest. ``<path>.sha256`` is written at the end, in the format of sha256sum.

    Args:
        progress: called with the bytes so far and the size, where the server gives it.

    Returns:
        The SHA-256 of the file.

    Raises:
        DataError: no such address, no connection after all attempts, or bytes that fail their check twice.
    """
    recorded = path.with_name(f"{path.name}.sha256")
    expected = _recorded_in(recorded) if recorded.exists() else None
    if path.exists() and expected and _sha256(path) == expected:
        return expected
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    problem = ""
    for _ in range(2):
        _transfer(url, part, settings, progress)
        digest = _sha256(part)
        problem = _damage(part, path.name)
        if not problem:
            with part.open("rb") as stream:
                os.fsync(stream.fileno())
            write_text(recorded, f"{digest}  {path.name}\n")
            part.replace(path)
            _note_of(part).unlink()
            return digest
        part.unlink()
        _note_of(part).unlink()
    raise DataError(f"{url}: {problem}, twice in a row; the file or the connection is damaged")


def _transfer(
    url: str, part: Path, settings: DownloadSettings, progress: Callable[[int, int | None], None] | None
) -> None:
    """Download all of `url` into `part`, over as many connections as necessary."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _connection(url, part, settings.timeout_s, progress):
                return
            trouble = "the connection ended early"
        except urllib.error.HTTPError as error:
            if error.code not in _RETRY_STATUS:
                hint = "; check the category's spelling" if error.code == 404 else ""
                raise DataError(f"{url}: the server answers {error.code} {error.reason}{hint}") from error
            trouble = f"{error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            trouble = f"{type(error).__name__}: {error}"
        gained = (part.stat().st_size if part.exists() else 0) - before
        failures = 0 if gained > 0 else failures + 1
        if failures >= settings.attempts:
            raise DataError(
                f"{url}: {trouble}, {failures} times without a new byte; what arrived is kept, start the same command "
                "again to resume, or give a mirror with PENCHANT_STAGES__DOWNLOAD__AMAZON_2023"
            )
        time.sleep(min(60.0, settings.backoff_s * 2 ** max(0, failures - 1)))


def _connection(url: str, part: Path, timeout_s: float, progress: Callable[[int, int | None], None] | None) -> bool:
    """Send one request, for what `part` lacks if the server allows it; True when the file is complete."""
    note = _read_note(part, url)
    have = part.stat().st_size if note and part.exists() else 0
    if note and note["size"] is not None and have == note["size"]:
        return True
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "penchant"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if note and note["validator"]:
            request.add_header("If-Range", note["validator"])
    try:
        response = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the source is shorter than our part: begin again
            part.unlink(missing_ok=True)
            return False
        raise
    with response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        size = int(length) + (have if resumed else 0) if length else None
        if resumed and not (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
            raise http.client.HTTPException(f"asked for bytes from {have}, got {response.headers.get('Content-Range')}")
        etag = response.headers.get("ETag") or ""
        validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified") or ""
        write_json(_note_of(part), {"url": url, "validator": validator, "size": size}, indent=None)
        done = have if resumed else 0
        with part.open("ab" if resumed else "wb") as sink:
            while chunk := response.read(_CHUNK):
                sink.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, size)
    return size is None or done == size


def _recorded_in(path: Path) -> str | None:
    """The checksum in a file of sha256sum; None where it is damaged."""
    words = path.read_text(errors="replace").split()
    return words[0] if words else None


def _note_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path, url: str) -> dict[str, Any] | None:
    """The note on the bytes in `part`; None where there is none, or it is about another address."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        note = json.loads(_note_of(part).read_text())
        if note.get("url") == url:
            return note
    return None


def _damage(part: Path, name: str) -> str:
    """What is wrong with a complete file; empty where nothing is."""
    if name.endswith(".gz"):
        try:
            with gzip.open(part, "rb") as stream:
                while stream.read(_CHUNK):
                    pass
        except (OSError, EOFError, zlib.error) as error:
            return f"the gzip checksum fails ({error})"
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def download(source: str, folder: Path, settings: Settings, name: str | None = None) -> Dataset:
    """Fetch both files of `source` into `folder` and register them as a data set.

    Args:
        name: name of the data set; by default the source's, in lower case.

    Raises:
        DataError: see `fetch` and `register`.
    """
    ours = stage_settings(DownloadSettings, settings)
    paths = []
    for url in addresses(source, ours):
        path = folder / url.rsplit("/", 1)[1]
        shown = Progress(settings.home, "download")

        def report(done: int, size: int | None, path: Path = path, shown: Progress = shown) -> None:
            shown.update(done, size or done + 1, path.name)

        fetch(url, path, ours, progress=report)
        paths.append(str(path))
    reviews, items = paths
    return register(
        name or source.replace(":", "-").lower(),
        reviews,
        items,
        format="amazon-2023",
        datasets_dir=settings.datasets_dir(),
    )


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, fetch and register."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="e.g. amazon-2023:Musical_Instruments")
    parser.add_argument("--out", type=Path, help="folder of the files (default: landing/ in the home folder)")
    parser.add_argument("--name", help="name of the data set (default: from the source)")
    given = parser.parse_args(argv)
    settings = load_settings()
    folder = given.out or Path(settings.home) / "landing" / given.source.replace(":", "-")
    dataset = download(given.source, folder, settings, given.name)
    sys.stdout.write(f"registered {dataset.name}: {dataset.reviews} and {dataset.items}\n")


if __name__ == "__main__":
    main()
