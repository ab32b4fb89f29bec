"""Index of a catalogue's terms: finds the items that a phrase is about.

A term is a stemmed word of the items' texts (`schemas.words.stem`), or two adjacent ones. A phrase matches items whose
texts contain its words, and items with terms that a sentence encoder places near it: "silent" finds what is called
quiet, and not what is loud (`ray_jobs.steering.opposites`). Every match can be explained by a word, and a phrase that
is about nothing in the catalogue matches nothing.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save_file

from ray_jobs.encoders.text import TextEncoder, load_text_encoder
from ray_jobs.steering.opposites import opposites_of
from ray_jobs.steering.remembered import Remembered
from schemas.words import FUNCTION_WORDS, stem, words

FILE = "terms.safetensors"
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_LEAST_ITEMS = 2
_NEAREST = 64
"""Largest number of similar terms that a phrase matches."""
_WINDOW = 0.25
"""Terms whose cosine is further than this below the best one have another meaning: "loud" is near "silent"."""
_SENTENCE_END = re.compile(r"[.!?>;:,()\[\]|]\s|\s-\s")
_FAINT = 0.05
"""Scores below this count as no match."""
_KEPT_PHRASES = 512


@dataclass(frozen=True)
class Match:
    """The items that match a phrase.

    Args:
        items: ascending catalogue indices int64[M].
        scores: float32[M] in (0, 1]; the best match has 1.
        terms: rows of the matching terms: the phrase's own words, then the nearest.
        opposed: ascending catalogue indices of other items that have an antonym.
        opposites: rows of the antonyms.
    """

    items: IntArray
    scores: FloatArray
    terms: IntArray = field(repr=False)
    opposed: IntArray = field(repr=False)
    opposites: IntArray = field(repr=False)

    def __bool__(self) -> bool:
        return bool(len(self.items) or len(self.opposed))


@dataclass(frozen=True)
class Terms:
    """Terms of texts, and the items that have each.

    Args:
        forms: of each term, as it is first written.
        stems: of each term, the stemmed form.
        starts, items: the items of term t are ``items[starts[t] : starts[t + 1]]``, ascending: int64[T + 1], int64[E].
    """

    forms: tuple[str, ...]
    stems: tuple[str, ...]
    starts: IntArray
    items: IntArray

    def having(self, row: int) -> IntArray:
        """Ascending catalogue indices of the items that have the term."""
        return self.items[self.starts[row] : self.starts[row + 1]]

    def properties(self) -> dict[str, IntArray]:
        """`having` of each term by its form."""
        return {form: self.having(row) for row, form in enumerate(self.forms)}


class TermIndex:
    """Terms of a catalogue with their vectors.

    Args:
        vectors: unit vectors float32[T, D] of the terms' forms.
        encoder: of the vectors, or its name: it is loaded when a phrase is first compared.
        size: number of items N of the catalogue.
        similarity: cosine from which a term counts as a synonym of a phrase.
    """

    def __init__(
        self, terms: Terms, vectors: FloatArray, encoder: TextEncoder | str, size: int, similarity: float
    ) -> None:
        self.terms, self.vectors, self.size, self.similarity = terms, vectors, size, similarity
        self.encoder = encoder if isinstance(encoder, str) else encoder.name
        self._rows: Mapping[str, int] = {term: row for row, term in enumerate(terms.stems)}
        self._rarity = np.log(size / np.maximum(1, np.diff(terms.starts)))
        self._loaded = None if isinstance(encoder, str) else encoder
        self._encoded: dict[str, npt.NDArray[np.float32]] = {}
        self.match = Remembered(self._match, _KEPT_PHRASES)

    @property
    def text_encoder(self) -> TextEncoder:
        """The encoder, loaded at first use."""
        if self._loaded is None:
            self._loaded = load_text_encoder(self.encoder)
        return self._loaded

    def encode(self, phrases: Sequence[str]) -> None:
        """Encode and cache phrases in one batch, which is faster than one after another."""
        encoder = self.text_encoder
        new = [phrase for phrase in phrases if phrase not in self._encoded]
        if new and len(self):
            if len(self._encoded) + len(new) > _KEPT_PHRASES:
                self._encoded.clear()
            self._encoded.update(zip(new, encoder.encode(new), strict=True))

    def __len__(self) -> int:
        return len(self.terms.forms)

    def _match(self, phrase: str) -> Match:
        """Items that a phrase is about; `match` caches it."""
        stems = _stems(phrase)
        scores = np.zeros(self.size, dtype=np.float32)
        known = [self._rows[term] for term in stems if term in self._rows]
        if known:
            unknown = len(stems) - len(known)
            rarity = self._rarity[known]
            whole = rarity.sum() + unknown * np.log(self.size)
            for row, part in zip(known, rarity / max(whole, 1e-9), strict=True):
                scores[self.terms.having(row)] += np.float32(part)
            scores *= scores  # some of the words say less than their share
        opposed = opposites_of(stems)
        rows, near = self._near(phrase, opposed)
        for row, score in zip(rows.tolist(), near.tolist(), strict=True):
            found = self.terms.having(row)
            scores[found] = np.maximum(scores[found], np.float32(score))
        # One common word of a long phrase is no match.
        scores[scores < _FAINT] = 0
        best = float(scores.max(initial=0))
        items = np.flatnonzero(scores)
        terms = np.array(list(dict.fromkeys([*known, *rows[near >= _FAINT].tolist()])), dtype=np.int64)
        # In a phrase of several words, such as "heavy on bass", a word may mean something else.
        named = sorted(opposed) if len(stems) == 1 else []
        against = np.array([self._rows[term] for term in named if term in self._rows], dtype=np.int64)
        other = np.setdiff1d(np.concatenate([items[:0], *map(self.terms.having, against.tolist())]), items)
        return Match(items, scores[items] / (best or 1), terms, other, against)

    def _near(self, phrase: str, opposed: frozenset[str]) -> tuple[IntArray, FloatArray]:
        """Rows of the most similar terms without a word in `opposed`, nearest first, and their scores, the first 1."""
        if not len(self):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        if phrase not in self._encoded:
            self.encode([phrase])
        cosines = self.vectors @ self._encoded[phrase]
        if opposed:
            cosines = np.where([bool(opposed.intersection(term.split())) for term in self.terms.stems], -1, cosines)
        rows = np.argsort(-cosines, kind="stable")[:_NEAREST]
        top = float(cosines[rows[0]])
        least = max(self.similarity, top - _WINDOW)
        rows = rows[cosines[rows] > least]
        share = (cosines[rows].astype(np.float32) - least) / max(top - least, 1e-6)
        return rows, share * share

    def because(self, phrase: str, item: int) -> str | None:
        """The term by which `item` matches the phrase, as texts write it, or None."""
        match = self.match(phrase)
        return self._first(match.terms, item) if _holds(match.items, item) else None

    def although(self, phrase: str, item: int) -> str | None:
        """The antonym by which `item` opposes the phrase, as texts write it, or None."""
        match = self.match(phrase)
        return self._first(match.opposites, item) if _holds(match.opposed, item) else None

    def _first(self, rows: IntArray, item: int) -> str | None:
        return next((self.terms.forms[row] for row in rows.tolist() if _holds(self.terms.having(row), item)), None)

    def save(self, folder: Path) -> None:
        """Write the index to `folder`."""
        tensors: dict[str, np.ndarray] = {
            "starts": self.terms.starts,
            "items": self.terms.items.astype(np.int32),
            "vectors": self.vectors.astype(np.float16),
        }
        about = {
            "encoder": self.encoder,
            "size": self.size,
            "similarity": self.similarity,
            "terms": [self.terms.forms, self.terms.stems],
        }
        save_file(tensors, folder / FILE, metadata={"about": json.dumps(about)})

    @classmethod
    def load(cls, folder: Path) -> "TermIndex":
        """The inverse of `save`."""
        with safe_open(folder / FILE, framework="np") as file:
            about = json.loads(file.metadata()["about"])
            tensors = {name: file.get_tensor(name) for name in ("starts", "items", "vectors")}
        forms, stems = map(tuple, about["terms"])
        terms = Terms(forms, stems, tensors["starts"], tensors["items"].astype(np.int64))
        vectors = tensors["vectors"].astype(np.float32)
        return cls(terms, vectors, about["encoder"], about["size"], about["similarity"])


def _holds(ascending: IntArray, item: int) -> bool:
    place = int(np.searchsorted(ascending, item))
    return place < len(ascending) and int(ascending[place]) == item


def find_terms(texts: Sequence[str], most_items: float = 0.5, most_terms: int = 20_000) -> Terms:
    """The terms that at least two of the `texts` have, and at most a share `most_items` of them."""
    from sklearn.feature_extraction.text import CountVectorizer

    forms: dict[str, str] = {}
    counter = CountVectorizer(analyzer=lambda text: _terms_of(text, forms), binary=True, max_features=most_terms)
    counter.set_params(min_df=_LEAST_ITEMS, max_df=most_items)
    nothing = Terms((), (), np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64))
    if len(texts) < _LEAST_ITEMS / most_items:
        return nothing
    try:
        having = counter.fit_transform(texts).T.tocsr()
    except ValueError:  # scikit-learn: no term is left
        return nothing
    having.sort_indices()
    stems = tuple(map(str, counter.get_feature_names_out()))
    shown = tuple(forms[term] for term in stems)
    return Terms(shown, stems, having.indptr.astype(np.int64), having.indices.astype(np.int64))


def build_terms(
    texts: Sequence[str], encoder: TextEncoder, similarity: float, most_items: float, most_terms: int
) -> TermIndex:
    """`find_terms` with vectors of `encoder`."""
    found = find_terms(texts, most_items, most_terms)
    vectors = encoder.encode(found.forms).astype(np.float16).astype(np.float32)
    return TermIndex(found, vectors, encoder, len(texts), similarity)


def _terms_of(text: str, forms: dict[str, str]) -> list[str]:
    """Terms of a text; adds how each is written to `forms`."""
    found = []
    for sentence in _SENTENCE_END.split(text):
        single = [(stem(word), word.lower()) for word in words(sentence) if _says_something(word)]
        pairs = [(f"{a} {b}", f"{x} {y}") for (a, x), (b, y) in itertools.pairwise(single)]
        for term, form in [*single, *pairs]:
            forms.setdefault(term, form)
            found.append(term)
    return found


def _stems(phrase: str) -> list[str]:
    return list(dict.fromkeys(stem(word) for word in words(phrase) if _says_something(word)))


def _says_something(word: str) -> bool:
    return len(word) > 1 and not word.isdigit() and word.lower().split("'")[0] not in FUNCTION_WORDS
