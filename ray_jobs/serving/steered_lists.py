"""Text for a terminal that shows how lists follow words: without words, with a wish, and with its opposite."""

import re
import textwrap
from collections.abc import Sequence
from itertools import zip_longest

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
"""Preferred number of items with the word before steering, so that the wish and its opposite can both change it."""
_LOOKED_AT, _WORDS = 12, 12
"""Numbers of users and words to choose the shown ones from."""
_MEASURED_USERS, _MEASURED_WORDS = 20, 8


def steered(settings: Settings, dataset: str, alias: str, count: int = 3, bold: bool = False) -> str:
    """How the lists of the version at `alias` follow words, for `count` users; one line if there is no version.

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
    return shown(source.load(version), version, example_users(settings, dataset, _MEASURED_USERS), count, bold)


def shown(bundle: Bundle, version: str, users: Sequence[User], count: int = 3, bold: bool = False) -> str:
    """The text for a loaded model; `bold` prints matched words in bold, beside the asterisk.

    Raises:
        DataError: no user has a history.
    """
    recommender, catalogue = bundle.recommender, bundle.catalogue
    title = f"What words do: {version} ({bundle.recipe})"
    lines = ["", title, "-" * len(title)]
    if recommender.steering is None and Need.PREFERENCES not in recommender.needs:
        return "\n".join(
            [*lines, "It has no steering layer and reads no preferences: words do not move its lists.", ""]
        )
    able = _able(bundle, users)
    terms = find_terms(catalogue.texts) if recommender.steering is None else recommender.steering.terms.terms
    lines += ["An asterisk marks items with the word in title or text; counts are of the first ten.", ""]
    for user, row in _cases(bundle, terms, able, count):
        lines += [*_case_lines(bundle, terms, user, row, bold), ""]
    found = measure_following(recommender, _histories(bundle, able), _MEASURED_USERS, _MEASURED_WORDS)
    return "\n".join([*lines, measured_line(found), ""])


def by_category(settings: Settings, dataset: str, alias: str, count: int, words: int) -> str:
    """One line on the lists of `count` users with a wish for each of the commonest categories, and with its refusal.

    Raises:
        SettingError: MLflow does not answer, or there is no version.
        DataError: the data set has no users.
    """
    runs.connect(settings)
    source = RegistrySource(settings.mlflow.tracking_uri, registered_name(dataset), alias)
    bundle = source.load(source.newest())
    able = _able(bundle, example_users(settings, dataset, count))
    categories = item_categories(settings, dataset, bundle.catalogue.item_ids)
    found = measure_following(bundle.recommender, _histories(bundle, able), count, words, properties=categories)
    return f"By category: {measured_line(found)}\n"


def measured_line(found: Following) -> str:
    """The measures in one line."""
    if not found.lists:
        return "The catalogue has too few words that tell its items apart to measure more."
    return (
        f"{found.lists:,} lists: share of the word {found.before:.0%} without, {found.wanted:.0%} with, "
        f"{found.refused:.0%} against; doubled {found.success:.0%} (success), by another {found.control:.0%} (control)"
    )


def _able(bundle: Bundle, users: Sequence[User]) -> list[User]:
    known = bundle.catalogue.index
    able = [user for user in users if sum(item in known for item in user.history) > 1]
    if not able:
        raise DataError("no user has a history of two items of the catalogue: nobody can be shown")
    return able


def _cases(bundle: Bundle, terms: Terms, users: Sequence[User], count: int) -> list[tuple[User, int]]:
    """Users and rows of `terms`, each at most once, such that few items of the user's list have the word."""
    users = users[:_LOOKED_AT]
    rows = example_words(terms, bundle.catalogue.titles, _WORDS)
    lists = _recommended(bundle, users, [None] * len(users))
    has = {row: frozenset(terms.having(row).tolist()) for row in rows}
    pairs = [
        (abs(sum(item in has[row] for item in own) - _FEW), order, place)
        for place, own in enumerate(lists)
        for order, row in enumerate(rows)
    ]
    cases: dict[int, tuple[User, int]] = {}
    for _, order, place in sorted(pairs):
        if len(cases) < count and place not in cases and all(row != rows[order] for _, row in cases.values()):
            cases[place] = (users[place], rows[order])
    return list(cases.values())


def _recommended(bundle: Bundle, users: Sequence[User], sentences: Sequence[str | None]) -> list[list[int]]:
    """Catalogue indices of the first ten items for each user, as they are served."""
    answers = bundle.recommend([user.history for user in users], sentences, LENGTH, **user_columns(users))
    return [[bundle.catalogue.index[item] for item, _ in row] for row in answers]


def _case_lines(bundle: Bundle, terms: Terms, user: User, row: int, bold: bool) -> list[str]:
    word, stemmed, catalogue = terms.forms[row], terms.stems[row], bundle.catalogue
    has = frozenset(terms.having(row).tolist())
    sentences = ("no words", f"Prefers {word}", f"Avoids {word}")
    lists = _recommended(bundle, [user] * 3, [None, *sentences[1:]])
    titles = [catalogue.titles[catalogue.index[i]] for i in user.history if i in catalogue.index][-_LAST:]
    heading = f"User {user.user_id}, last: {'; '.join(titles)}"
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
    lines = [_GAP.join(cells).rstrip() for cells in zip_longest(*columns, fillvalue=" " * _COLUMN)]
    return [*textwrap.wrap(heading, WIDTH, subsequent_indent="  "), *(f"  {line}" for line in lines)]


def _cell(number: int, title: str, stemmed: str, marked: bool, bold: bool) -> str:
    mark = "*" if marked else " "
    padded = f"{number} {mark} {_shortened(title, stemmed if marked else '', _COLUMN - 4)}".ljust(_COLUMN)
    place = stem_place(stemmed, padded) if marked and bold else None
    return padded if place is None else f"{padded[: place[0]]}\033[1m{padded[slice(*place)]}\033[0m{padded[place[1] :]}"


def _shortened(text: str, stemmed: str, width: int) -> str:
    """`text` cut to one line of `width` characters that keeps the word with that stem."""
    line = " ".join(text.split())
    place = stem_place(stemmed, line)
    if len(line) > width and place is not None and place[1] > width - 3:
        begins = [match.start() for match in re.finditer(r"\S+", line[: place[0]])]
        start = next((begin for begin in begins if place[1] - begin <= width - 6), place[0])
        line = f"...{line[start:]}"
    return line if len(line) <= width else f"{line[: width - 3].rstrip()}..."


def _histories(bundle: Bundle, users: Sequence[User]) -> Histories:
    """The users' histories without items outside the catalogue; the last item of each is the target."""
    index = bundle.catalogue.index
    items = tuple(np.array([index[i] for i in user.history if i in index], dtype=np.int64) for user in users)
    last = np.array([len(row) - 1 for row in items], dtype=np.int64)
    return Histories(tuple(user.user_id for user in users), items, last - 1, last, ({},) * len(items))
