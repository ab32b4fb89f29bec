"""Search for user ids inside texts, used by deletion, recount and ingest.

An id may contain any character, and a malformed line any separator. Every substring of a text that begins and ends at a
word boundary is therefore compared with the ids, or by its hash where only hashes are known.
"""

import functools
import hashlib
import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sf

from schemas.erasures import user_key

LONGEST = 128
"""Length up to which ids are searched for inside texts; longer ones only match whole values."""
_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_LETTERS = {"t": "\t", "n": "\n", "r": "\r", "b": "\b", "f": "\f"}
_BYTES = 8


def substrings(text: str, longest: int) -> Iterator[str]:
    """Substrings of `text` of at most `longest` characters that begin and end at a word boundary.

    The text is read both as it is and with the escapes of JSON, CSV and Python resolved.
    """
    for variant in _readings(text):
        word = [letter.isalnum() for letter in variant]
        size = len(word)
        ends = [n for n in range(1, size + 1) if n == size or not word[n]]
        for start in range(size):
            if start == 0 or not word[start - 1]:
                for end in ends[bisect_left(ends, start + 1) : bisect_right(ends, start + longest)]:
                    yield variant[start:end]


def _readings(text: str) -> set[str]:
    """`text` as it is, with doubled quotes as one, and with escapes resolved."""
    bare = {text, text.replace('""', '"'), text.replace("''", "'")}
    read = {
        _PAIR.sub(_joined, _ESCAPED.sub(functools.partial(_plain, letters), one))
        for one in bare
        for letters in ({}, _LETTERS)
    }
    return bare | read


def _plain(letters: Mapping[str, str], escape: re.Match[str]) -> str:
    code = escape[1] or escape[2] or escape[3]
    if code is None:
        return letters.get(escape[4], escape[4])
    return chr(int(code, 16)) if int(code, 16) <= sys.maxunicode else escape[0]


def _joined(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16", "surrogatepass").decode("utf-16")


class IdSearch:
    """Finds ids inside texts.

    Args:
        users: ids in clear.
    """

    def __init__(self, users: Collection[str]) -> None:
        self._keys = {user: user_key(user) for user in users if len(user) <= LONGEST}
        self._longest = max(map(len, self._keys), default=0)

    def keys_in(self, text: str) -> set[str]:
        """Keys of the users whose id `text` contains."""
        return {self._keys[part] for part in substrings(text, self._longest) if part in self._keys}

    def keys_of(self, column: Column | str) -> Column:
        """`keys_in` of each text of a column, as an array, maybe empty."""

        def found(texts: pd.Series) -> pd.Series:
            return texts.map(lambda text: sorted(self.keys_in(text)) if text else [])

        return sf.pandas_udf(found, "array<string>")(column)  # type: ignore[call-overload, no-any-return]


class KeySearch:
    """Finds ids inside texts where only their keys are known.

    Args:
        keys: keys of users; only their first bytes are kept, so that a long list fits into every process.
    """

    def __init__(self, keys: Collection[str]) -> None:
        self._known: npt.NDArray[np.uint64] = np.sort(np.array([int(key[: 2 * _BYTES], 16) for key in keys], np.uint64))

    def holds(self, text: str) -> bool:
        """Whether `text` contains the id of one of the users."""
        parts = set(substrings(text, LONGEST))
        heads = b"".join(hashlib.sha256(part.encode(errors="replace")).digest()[:_BYTES] for part in parts)
        return bool(np.isin(np.frombuffer(heads, ">u8").astype(np.uint64), self._known).any())

    def in_column(self, column: Column) -> Column:
        """`holds` for each text of a column; false where it is null."""

        def found(texts: pd.Series) -> pd.Series:
            return texts.map(lambda text: bool(text) and self.holds(text)).astype(bool)

        return sf.pandas_udf(found, "boolean")(column)  # type: ignore[call-overload, no-any-return]


def one_column(spark: SparkSession, values: Collection[str], name: str) -> DataFrame:
    """`values` as a frame of one column to join with; long IN lists slow down every plan."""
    return sf.broadcast(spark.createDataFrame(pd.DataFrame({name: sorted(values)}, dtype=object), f"{name} string"))
