"""Lines of text files: compressed or not (by content, not by name), in any encoding, with any line end.

Plain Python, no engine. A line is ``(number, bytes, size)``: its number counts physical lines from 1; its bytes are
UTF-8 where possible, without the line feed; of a line above the limit only the beginning is kept.
"""

import bz2
import codecs
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, cast

from schemas.errors import DataError

Line = tuple[int, bytes, int]

HEAD = 1 << 16
"""Bytes from which line ends and encodings are inferred."""
KEPT = 8_000
"""Bytes kept of a line above the limit."""
_CHUNK = 1 << 20
_MAGIC = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"PK\x05\x06": "zip",
    b"\xfd7zXZ\x00": "xz",
}  # fmt: skip
_FOREIGN = {b"7z\xbc\xaf\x27\x1c": "7-Zip", b"Rar!": "RAR", b"\x04\x22\x4d\x18": "LZ4", b"\x1f\x9d": "compress (.Z)"}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_SIDE_FILES = re.compile(r"_SUCCESS|_committed_.*|_started_.*|_(common_)?metadata|\..*\.crc|\.DS_Store")
"""Files that Spark and desktops put beside data."""


def parts(path: Path) -> list[Path]:
    """The file itself, or the files below a folder.

    Raises:
        DataError: there is no file, or a name is one that readers skip.
    """
    if path.is_file():
        _visible(path, path)
        return [path]
    found = sorted(one for one in path.rglob("*") if one.is_file() and not _SIDE_FILES.fullmatch(one.name))
    for one in found:
        _visible(one, path)
    if not found:
        raise DataError(f"there is no file in {path}")
    return found


def landing_path(pattern: str, partition: str, dataset: str) -> str:
    """The path of a partition's landing file.

    Raises:
        DataError: a local file does not exist, or has a name that readers skip; the message says what to do.
    """
    path = pattern.replace("{partition}", partition)
    if "://" in path:
        return path
    if not Path(path).exists():
        raise DataError(
            f"data set {dataset}: no file {path}; deliver it, or register the data set again (penchant register)"
        )
    parts(Path(path))
    return path


def _visible(file: Path, above: Path) -> None:
    try:
        str(file).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{str(file)!r}: the name is not UTF-8; rename the file") from error
    inside = file.relative_to(above).parts or (file.name,)
    hidden = next((name for name in inside if name.startswith(("_", ".")) and "=" not in name), None)
    if hidden:
        raise DataError(
            f"{file}: {hidden!r} begins with {hidden[0]!r}, so Spark takes it for hidden; rename or move it"
        )


def head(path: Path, encoding: str = "utf-8", size: int = HEAD) -> bytes:
    """The first bytes of the decompressed file, in UTF-8 where the encoding is a wide one.

    Raises:
        DataError: the file is damaged, or compressed in an unsupported way.
    """
    with _opened(path, encoding) as stream:
        return stream.read(size)


def compression(path: Path) -> str:
    """The compression of a file: ``gzip``, ``bzip2``, ``zstd``, ``xz``, ``zip`` or empty.

    Raises:
        DataError: it is unsupported.
    """
    with path.open("rb") as stream:
        first = stream.read(8)
    for magic, name in _FOREIGN.items():
        if first.startswith(magic):
            raise DataError(f"{path} is packed with {name}, which is not read; pack it with gzip, or not at all")
    return next((name for magic, name in _MAGIC.items() if first.startswith(magic)), "")


def _unpacked(path: Path) -> IO[bytes]:
    match compression(path):
        case "gzip":
            return cast(IO[bytes], gzip.open(path, "rb"))
        case "bzip2":
            file = path.open("rb")
            return io.BufferedReader(_Chunked(_decompressed(file, bz2.BZ2Decompressor), file), _CHUNK)
        case "xz":
            file, begin = path.open("rb"), partial(lzma.LZMADecompressor, lzma.FORMAT_XZ)
            return io.BufferedReader(_Chunked(_decompressed(file, begin), file), _CHUNK)
        case "zstd":
            import pyarrow as pa

            return cast(IO[bytes], pa.input_stream(str(path), compression="zstd"))
        case "zip":
            return _only_member(path)
    return path.open("rb")


class _Chunked(io.RawIOBase):
    """A stream of the bytes in `chunks`, which are read from `source`."""

    def __init__(self, chunks: Iterator[bytes], source: IO[bytes]) -> None:
        self._chunks = chunks
        self._source = source
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer`; 0 only at the end."""
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = chunk
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def close(self) -> None:
        self._source.close()
        super().close()


def _decompressed(file: IO[bytes], begin: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]) -> Iterator[bytes]:
    """The content of concatenated bzip2 or xz streams.

    Python's own readers end silently where a second stream begins with damaged bytes; here only another stream or zeros
    may follow a stream.
    """
    stream, packed = begin(), file.read(HEAD)
    while True:
        if stream.eof:
            packed = stream.unused_data.lstrip(b"\0")
            while not packed and (chunk := file.read(HEAD)):
                packed = chunk.lstrip(b"\0")
            if not packed:
                return
            stream = begin()
        elif not packed and stream.needs_input:
            packed = file.read(HEAD)
            if not packed:
                raise EOFError("a stream has no end")
        yield stream.decompress(packed, _CHUNK)
        packed = b""


def _decoded(stream: IO[bytes], encoding: str | None, carriage: bool) -> Iterator[bytes]:
    """Bytes in another encoding, or with carriage returns for line ends, as UTF-8 with line feeds."""
    decoder = codecs.getincrementaldecoder(encoding)() if encoding else None
    while True:
        chunk = stream.read(HEAD)
        text = decoder.decode(chunk, not chunk).encode("utf-8", "replace") if decoder else chunk
        yield text.replace(b"\r", b"\n") if carriage else text
        if not chunk:
            return


def _only_member(path: Path) -> IO[bytes]:
    archive = zipfile.ZipFile(path)
    members = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        raise DataError(f"{path} is a ZIP of {len(members)} files; unpack it and give the file that is meant")
    if members[0].flag_bits & 1:
        raise DataError(f"{path} is a ZIP with a password; unpack it")
    try:
        return archive.open(members[0])
    except NotImplementedError as error:
        raise DataError(f"{path} is a ZIP packed in a way that is not read ({error}); unpack it") from error


def _wide(encoding: str) -> bool:
    """Whether a line feed takes several bytes, so that a text must be decoded before it is cut into lines."""
    return codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))


def _stream(path: Path, encoding: str) -> IO[bytes]:
    """The decompressed bytes, with line feeds, without a byte order mark, in UTF-8 where the encoding is a wide one."""
    with closing(_unpacked(path)) as opened:
        first = opened.read(HEAD)
    if first[257:262] == b"ustar":
        raise DataError(f"{path} is a tar archive; unpack it and give the file, or the folder of parts, that is meant")
    mark, found = next(((mark, name) for mark, name in _MARKS if first.startswith(mark)), (b"", encoding))
    wide = found if _wide(found) else None
    carriage = b"\r" in first and b"\n" not in first
    stream = _unpacked(path)
    if mark and not wide:
        stream.read(len(mark))
    if wide or carriage:
        return io.BufferedReader(_Chunked(_decoded(stream, wide, carriage), stream), _CHUNK)
    return cast(IO[bytes], io.BufferedReader(cast(io.RawIOBase, stream), _CHUNK))


@contextmanager
def _opened(path: Path, encoding: str) -> Iterator[IO[bytes]]:
    """`_stream`, with an error of ours for any damage that a reader meets."""
    try:
        with closing(_stream(path, encoding)) as stream:
            yield stream
    except UnicodeError as error:
        raise DataError(
            f"{path} is no text in the encoding that its first bytes or --encoding tell: {error}"
        ) from error
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # an error of the operating system
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        raise DataError(f"{path} is damaged or cut off (it cannot be decompressed); fetch it again") from error


def count_lines(path: Path, encoding: str = "utf-8") -> int:
    """Number of physical lines, counted by line feeds.

    Raises:
        DataError: the file is damaged.
    """
    lines, last = 0, b"\n"
    with _opened(path, encoding) as stream:
        while chunk := stream.read(_CHUNK):
            lines += chunk.count(b"\n")
            last = chunk[-1:]
    return lines + (last != b"\n")


def read_lines(path: Path, encoding: str = "utf-8", max_bytes: int = _CHUNK) -> Iterator[Line]:
    """Every physical line of a file.

    Raises:
        DataError: the file is damaged.
    """
    narrow = codecs.lookup(encoding).name
    again = narrow not in ("utf-8", "utf-8-sig", "ascii") and not _wide(encoding)
    number = 0
    with _opened(path, encoding) as stream:
        while first := stream.readline(max_bytes + 1):
            number += 1
            size, last = len(first), first
            while size > max_bytes and last and not last.endswith(b"\n"):
                last = stream.readline(_CHUNK)
                size += len(last)
            size -= last.endswith(b"\n")
            line = first.removesuffix(b"\n") if size <= max_bytes else first[:KEPT]
            yield number, _as_utf8(line, narrow) if again else line, size


def _as_utf8(line: bytes, encoding: str) -> bytes:
    """A line in UTF-8; unchanged where it is not in `encoding`."""
    try:
        return line.decode(encoding).encode()
    except UnicodeError:
        return line
