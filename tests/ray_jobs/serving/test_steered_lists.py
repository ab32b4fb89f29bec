"""What the demo ends with: lists beside each other, and one line of measures."""

import numpy as np
import pytest
from spoken_to import WORDS, speechless, spoken_to, write_items, write_users

from infra.settings import Settings
from ray_jobs.data.histories import Histories
from ray_jobs.serving.example_users import example_users, item_categories
from ray_jobs.serving.steered_lists import WIDTH, measured_line, shown
from ray_jobs.steering.word_following import Following, measure_following
from schemas.errors import DataError


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    settings = Settings(home=str(tmp_path_factory.mktemp("home")))
    write_users(settings, "shop")
    return example_users(settings, "shop", 6)


def test_three_users_and_a_line_of_measures(users, monkeypatch):
    speechless(monkeypatch)
    lines = shown(spoken_to(), "m/1", users).splitlines()
    assert max(map(len, lines)) <= WIDTH
    headings = [line for line in lines if line.startswith("User ")]
    assert len({line.split()[1] for line in headings}) == 3
    heads = [line for line in lines if "Avoids" in line]
    assert len({line.split("Avoids ")[1].split(":")[0] for line in heads}) == 3, "a word each"
    for head in heads:
        before, wanted, refused = (int(part.split()[0]) for part in head.split(": ")[1:])
        assert wanted == 10
        assert before in (2, 3)
        assert refused == 0
    first = lines[lines.index(heads[0]) + 1]
    assert first[42:].startswith("1 * "), first
    assert lines[-1].startswith("36 lists: share of the word ")
    assert "100% with, 0% against; doubled " in lines[-1]
    assert lines[-1].endswith("(control)")


def test_a_terminal_gets_the_word_in_bold(users, monkeypatch):
    speechless(monkeypatch)
    text = shown(spoken_to(), "m/1", users, bold=True)
    assert "\033[1mQuiet\033[0m Kettle" in text
    assert text.replace("\033[1m", "").replace("\033[0m", "") == shown(spoken_to(), "m/1", users)


def test_a_model_that_no_word_moves_says_so_in_one_line(users):
    assert shown(spoken_to(steers=False), "m/2", users).splitlines()[3:] == [
        "It has no steering layer and reads no preferences: words do not move its lists."
    ]


def test_nobody_to_show_is_an_error():
    with pytest.raises(DataError, match="nobody can be shown"):
        shown(spoken_to(), "m/1", [])


def test_categories_are_asked_for_by_name(users, tmp_path, monkeypatch):
    speechless(monkeypatch)
    settings = Settings(home=str(tmp_path))
    bundle = spoken_to()
    ids = bundle.catalogue.item_ids
    write_items(
        settings, "shop", {item: ["All", WORDS[n % 4]] for n, item in enumerate([*ids, "not in the catalogue"])}
    )
    found = item_categories(settings, "shop", ids)
    assert {name: len(items) for name, items in found.items()} == {"All": 48} | dict.fromkeys(WORDS, 12)
    assert found["Compact"].tolist() == list(range(1, 48, 4))
    histories = Histories(("u",), (np.array([0, 5, 10]),), np.array([1]), np.array([2]), ({},))
    told = measure_following(bundle.recommender, histories, words=4, properties=found)
    assert told.lists == 4, "what every item is in tells nothing apart"
    assert (told.success, told.wanted, told.refused) == (1, 1, 0)


def test_the_measures_fit_a_line():
    most = Following(success=1, control=1, halved=1, lists=10_000, before=1, wanted=1, refused=1)
    assert len(measured_line(most)) <= WIDTH
    assert "too few words" in measured_line(Following())
