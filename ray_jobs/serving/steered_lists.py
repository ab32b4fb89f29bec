"""How lists follow words, as text for a terminal: one history, no words, a wish and its opposite side by side."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infra.errors import SettingError
from infra.settings import Settings
from ray_jobs.data.histories import Histories
from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.registry import runs
from ray_jobs.registry.users import User, user_columns
from ray_jobs.serving.example_users import example_users, item_categories
from ray_jobs.serving.hot_swap import RegistrySource
from ray_jobs.steering.example_words import example_words, stem_place
from ray_jobs.steering.terms import Terms, find_terms
from ray_jobs.steering.word_following import Following, measure_following
from schemas.errors import DataError
from schemas.model_versions import registered_name
from schemas.recipes import Need

WIDTH = 120
TOP, LENGTH = 5, 10
_LAST = 3
_COLUMN = 38
_GAP = "  "
_FEW = 2
"""Items of a list of ten that have the word before; so both the wish and its opposite have something to do."""
_LOOKED_AT, _WORDS = 12, 12
"""Users and words that the ones to show are chosen from."""
_MEASURED_USERS, _MEASURED_WORDS = 20, 8


@dataclass(frozen=True)
class _Case:
    """A user and the word that they are steered by, by row."""

    reader: User
    row: int


def steered(settings: Settings, dataset: str, alias: str, users: int = 3, bold: bool = False) -> str:
    """Load the version that `alias` points at, and show what words do to its lists; one line where there is none.

    Raises:
        SettingError: MLflow does not answer.
        DataError: the data set has no users.
    """
    runs.connect(settings)
    source = RegistrySource(settings.mlflow.tracking_uri, registered_name(dataset), alias)
    try:
        version = source.newest()
    except SettingError as error:
        return f"\nThere is nothing to steer: {error}\n"
    readers = example_users(settings, dataset, _MEASURED_USERS).readers
    return shown(source.load(version), version, readers, users, bold)


def shown(bundle: Bundle, version: str, readers: Sequence[User], users: int = 3, bold: bool = False) -> str:
    """The text for a loaded model; `bold` marks words as a terminal can, beside the asterisk.

    Raises:
        DataError: no reader has a history.
    """
    recommender, catalogue = bundle.recommender, bundle.catalogue
    title = f"What words do: {version} ({bundle.recipe})"
    lines = ["", title, "-" * len(title)]
    if recommender.steering is None and Need.PREFERENCES not in recommender.needs:
        return "\n".join(
            [*lines, "It has no steering layer and reads no preferences: words do not move its lists.", ""]
        )
    able = _able(bundle, readers)
    terms = find_terms(catalogue.texts) if recommender.steering is None else recommender.steering.terms.terms
    lines += ["An asterisk marks what has the word, in its title or its text; counts are of the first ten.", ""]
    for case in _cases(bundle, terms, able, users):
        lines += [*_case_lines(bundle, terms, case, bold), ""]
    found = measure_following(recommender, _histories(bundle, able), _MEASURED_USERS, _MEASURED_WORDS)
    return "\n".join([*lines, measured_line(found), ""])


def by_category(settings: Settings, dataset: str, alias: str, users: int, words: int) -> str:
    """One line for the lists of `users` under a wish for each of the commonest categories, and under its refusal.

    Raises:
        SettingError: MLflow does not answer, or there is no version.
        DataError: the data set has no users.
    """
    runs.connect(settings)
    source = RegistrySource(settings.mlflow.tracking_uri, registered_name(dataset), alias)
    bundle = source.load(source.newest())
    able = _able(bundle, example_users(settings, dataset, users).readers)
    categories = item_categories(settings, dataset, bundle.catalogue.item_ids)
    found = measure_following(bundle.recommender, _histories(bundle, able), users, words, properties=categories)
    return f"By category: {measured_line(found)}\n"


def measured_line(found: Following) -> str:
    """All that was asked in one line of a terminal."""
    if not found.lists:
        return "The catalogue has too few words that tell its items apart to measure more."
    return (
        f"{found.lists:,} lists: share of the word {found.before:.0%} without, {found.wanted:.0%} with, "
        f"{found.refused:.0%} against; doubled {found.success:.0%} (success), by another {found.control:.0%} (control)"
    )


def _able(bundle: Bundle, readers: Sequence[User]) -> list[User]:
    known = bundle.catalogue.index
    able = [reader for reader in readers if sum(item in known for item in reader.history) > 1]
    if not able:
        raise DataError("no user has a history of two items of the catalogue: nobody can be shown")
    return able


def _cases(bundle: Bundle, terms: Terms, readers: Sequence[User], count: int) -> list[_Case]:
    """Users and words, none twice, of whose lists few items have the word before anything is said."""
    readers = readers[:_LOOKED_AT]
    rows = example_words(terms, bundle.catalogue.titles, _WORDS)
    lists = _recommended(bundle, readers, [None] * len(readers))
    has = {row: frozenset(terms.having(row).tolist()) for row in rows}
    pairs = [
        (abs(sum(item in has[row] for item in own) - _FEW), order, place)
        for place, own in enumerate(lists)
        for order, row in enumerate(rows)
    ]
    cases: list[_Case] = []
    taken: set[int] = set()
    for _, order, place in sorted(pairs):
        if len(cases) < count and rows[order] not in taken and all(c.reader is not readers[place] for c in cases):
            cases.append(_Case(readers[place], rows[order]))
            taken.add(rows[order])
    return cases


def _recommended(bundle: Bundle, readers: Sequence[User], sentences: Sequence[str | None]) -> list[list[int]]:
    """Catalogue indices of the first ten items for each reader, as they are served."""
    answers = bundle.recommend([reader.history for reader in readers], sentences, LENGTH, **user_columns(readers))
    return [[bundle.catalogue.index[item] for item, _ in row] for row in answers]


def _case_lines(bundle: Bundle, terms: Terms, case: _Case, bold: bool) -> list[str]:
    word, stemmed, catalogue = terms.forms[case.row], terms.stems[case.row], bundle.catalogue
    has = frozenset(terms.having(case.row).tolist())
    sentences = ("no words", f"Prefers {word}", f"Avoids {word}")
    lists = _recommended(bundle, [case.reader] * 3, [None, *sentences[1:]])
    titles = [catalogue.titles[catalogue.index[i]] for i in case.reader.history if i in catalogue.index][-_LAST:]
    user = f"User {case.reader.user_id}, last: {'; '.join(titles)}"
    columns = []
    for sentence, items in zip(sentences, lists, strict=True):
        count = sum(item in has for item in items)
        head = f"{sentence}: {count} of {len(items)} {word}" if sentence == sentences[0] else f"{sentence}: {count}"
        columns.append(
            [
                _shortened(head, "", _COLUMN).ljust(_COLUMN),
                *(_cell(n, catalogue.titles[i], stemmed, i in has, bold) for n, i in enumerate(items[:TOP], 1)),
            ]
        )
    rows = [_GAP.join(cells).rstrip() for cells in zip(*(_filled(column) for column in columns), strict=True)]
    return [*textwrap.wrap(user, WIDTH, subsequent_indent="  "), *(f"  {row}" for row in rows)]


def _filled(cells: list[str]) -> list[str]:
    return [*cells, *[" " * _COLUMN] * (TOP + 1 - len(cells))]


def _cell(number: int, title: str, stemmed: str, marked: bool, bold: bool) -> str:
    mark = "*" if marked else " "
    padded = f"{number} {mark} {_shortened(title, stemmed if marked else '', _COLUMN - 4)}".ljust(_COLUMN)
    place = stem_place(stemmed, padded) if marked and bold else None
    return padded if place is None else f"{padded[: place[0]]}\033[1m{padded[slice(*place)]}\033[0m{padded[place[1] :]}"


def _shortened(text: str, stemmed: str, width: int) -> str:
    """`text` on one line of `width` characters; the word of that stem stays in sight."""
    line = " ".join(text.split())
    place = stem_place(stemmed, line)
    if len(line) > width and place is not None and place[1] > width - 3:
        begins = [match.start() for match in re.finditer(r"\S+", line[: place[0]])]
        start = next((begin for begin in begins if place[1] - begin <= width - 6), place[0])
        line = f"...{line[start:]}"
    return line if len(line) <= width else f"{line[: width - 3].rstrip()}..."


def _histories(bundle: Bundle, readers: Sequence[User]) -> Histories:
    """What is left of the readers' histories in the catalogue; the last item of each counts as the one to find."""
    index = bundle.catalogue.index
    items = tuple(np.array([index[i] for i in reader.history if i in index], dtype=np.int64) for reader in readers)
    last = np.array([len(row) - 1 for row in items], dtype=np.int64)
    return Histories(tuple(reader.user_id for reader in readers), items, last - 1, last, ({},) * len(items))
