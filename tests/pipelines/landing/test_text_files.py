"""Lines of files: compression, encodings, line ends, and what is refused. No Spark."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.landing.text_files import count_lines, parts, read_lines
from schemas.errors import DataError

TEXT = "a,ü\r\nb\n\nc"
LINES = ["a,ü\r", "b", "", "c"]


def _zip(*names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)
    return packed.getvalue()


PACKED = {
    "nothing": TEXT.encode(),
    "gzip": gzip.compress(TEXT.encode()),
    "two gzip members and zeros": gzip.compress(TEXT[:3].encode()) + gzip.compress(TEXT[3:].encode()) + bytes(64),
    "bzip2": bz2.compress(TEXT.encode()),
    "xz": lzma.compress(TEXT.encode()),
    "zstd": pa.compress(TEXT.encode(), codec="zstd", asbytes=True),
    "zip": _zip("r.csv", "__MACOSX/._r.csv"),
    "utf-8 with a mark": TEXT.encode("utf-8-sig"),
    "utf-16": TEXT.encode("utf-16"),
    "utf-16 big": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "utf-32": TEXT.encode("utf-32"),
}


@pytest.mark.parametrize("kind", PACKED)
def test_lines_are_the_same_however_they_are_packed(tmp_path: Path, kind: str):
    path = tmp_path / "r.csv.gz"  # the name says nothing
    path.write_bytes(PACKED[kind])
    lines = [(number, line.decode()) for number, line, _ in read_lines(path)]
    assert lines == list(enumerate(LINES, start=1))
    assert count_lines(path) == 4


def test_encodings_that_are_given_and_old_line_ends(tmp_path: Path):
    path = tmp_path / "r"
    path.write_bytes("Schön\n“gut”\n".encode("cp1252") + b"\x81\n")
    assert [line for _, line, _ in read_lines(path, "cp1252")] == ["Schön".encode(), "“gut”".encode(), b"\x81"]
    path.write_bytes("ü\n2\n".encode("utf-16-le"))
    assert [line.decode() for _, line, _ in read_lines(path, "utf-16-le")] == ["ü", "2"]
    path.write_bytes(b"a\rb\rc\r")
    assert [line for _, line, _ in read_lines(path)] == [b"a", b"b", b"c"]
    assert count_lines(path) == 3


def test_long_lines_are_cut_and_measured(tmp_path: Path):
    path = tmp_path / "r"
    sizes = [10, 11, 0, 30_000, 10, 11]
    path.write_bytes(b"\n".join(b"x" * size for size in sizes))
    found = list(read_lines(path, max_bytes=10))
    assert [size for _, _, size in found] == sizes
    assert [len(line) for _, line, _ in found] == [10, 11, 0, 11, 10, 11]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(bytes(range(256)) * 9)[:-9], "damaged or cut off"),
        (bz2.compress(bytes(range(256)) * 9)[:-9], "damaged or cut off"),
        (lzma.compress(bytes(range(256)) * 9)[:-9], "damaged or cut off"),
        (pa.compress(bytes(range(256)) * 9, codec="zstd", asbytes=True)[:-9], "damaged or cut off"),
        (b"BZh9 is how a text may begin", "damaged or cut off"),
        (_zip("a", "b"), "a ZIP of 2 files"),
        (_zip()[:9], "damaged or cut off"),
        (b"7z\xbc\xaf\x27\x1c", "packed with 7-Zip"),
        (b"\xff\xfea", "no text in the encoding"),
    ],
)
def test_what_is_not_read_is_said_in_one_sentence(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "r.json"
    path.write_bytes(content)
    for read in (count_lines, lambda path: list(read_lines(path))):
        with pytest.raises(DataError, match=message) as refused:
            read(path)
        assert str(path) in str(refused.value)


def _tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("r.csv"), io.BytesIO())
    return packed.getvalue()


def _deflate64() -> bytes:
    """A ZIP whose member says that it is packed with method 9."""
    packed = bytearray(_zip("r.csv"))
    packed[8] = 9
    packed[packed.index(b"PK\x01\x02") + 10] = 9
    return bytes(packed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_tar(), "a tar archive; unpack it"),
        (gzip.compress(_tar()), "a tar archive; unpack it"),
        (_deflate64(), "a ZIP packed in a way that is not read .*; unpack it"),
    ],
)
def test_archives_that_are_not_read_are_named(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "r"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        count_lines(path)


def _frames(text: bytes) -> bytes:
    return pa.compress(text, codec="zstd", asbytes=True)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, _frames])
def test_a_second_stream_is_read_or_said_to_be_damaged_wherever_a_bit_is_flipped(tmp_path: Path, pack):
    text = b"".join(b"%d,%d\n" % (number, number * number) for number in range(300))
    path = tmp_path / "r"
    path.write_bytes(pack(text) + pack(text) + (b"" if pack is _frames else bytes(8)))
    assert count_lines(path) == 600
    assert b"".join(line + b"\n" for _, line, _ in read_lines(path)) == text * 2
    for place in range(4 if pack is _frames else 24):  # Arrow writes no checksum of what is in a frame
        second = bytearray(pack(text))
        second[place] ^= 1
        path.write_bytes(pack(text) + second)
        with suppress(DataError):  # else a bit of the header that says nothing, such as gzip's time
            assert count_lines(path) == 600, place
    path.write_bytes(pack(text) + b"what follows is no stream")
    with pytest.raises(DataError, match="damaged or cut off"):
        count_lines(path)


def test_parts_of_a_folder_and_names_that_readers_skip(tmp_path: Path):
    folder = tmp_path / "_above"  # what lies above the folder that was given is nobody's business
    inner = folder / "day=_x"
    inner.mkdir(parents=True)
    with pytest.raises(DataError, match="no file in"):
        parts(folder)
    for name in ("b.csv", "a.csv", "_SUCCESS", "._SUCCESS.crc", ".DS_Store", "_committed_12"):
        (inner / name).touch()
    assert [path.name for path in parts(folder)] == ["a.csv", "b.csv"]
    (inner / ".c.csv").touch()
    with pytest.raises(DataError, match=r"'\.c\.csv' begins with '\.'"):
        parts(folder)
    with pytest.raises(DataError, match="rename or move it"):
        parts(inner / ".c.csv")
