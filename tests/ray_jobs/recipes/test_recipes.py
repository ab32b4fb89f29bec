"""The index of recipes beside what it names."""

import subprocess
import sys

import pytest

from infra.errors import SettingError
from infra.settings import REPOSITORY, Settings
from ray_jobs.recipes import recipe_class, settings_class
from schemas.recipes import PRESET, RECIPES, TABLES, Need
from schemas.sections import settings_of
from schemas.tables import TABLES as CONTRACTS

LOADS = """
import sys
from schemas.sections import settings_of
from infra.settings import Settings
from schemas.recipes import RECIPES
for name, recipe in RECIPES.items():
    for preset in (None, *recipe.presets):
        settings_of(name, Settings(), {f"{name}.preset": preset})
print(*{module.partition(".")[0] for module in sys.modules} & {"torch", "ray", "numpy", "sklearn", "transformers"})
"""


@pytest.mark.parametrize("name", RECIPES)
def test_an_entry_names_a_class_that_knows_its_name_and_takes_its_settings(name):
    entry = RECIPES[name]
    kind = recipe_class(name, entry.kind)
    assert kind.name == name
    assert settings_class(name, entry.kind).section == name
    assert entry.family == kind.__module__.split(".")[2]
    assert issubclass(settings_class(name, entry.kind), kind.__init__.__annotations__["settings"])


def test_no_settings_load_an_engine_and_every_preset_is_one_of_its_recipe():
    done = subprocess.run([sys.executable, "-c", LOADS], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(("kind", "others"), [("recommender", "sasrec"), ("tokenizer", "rqvae")])
def test_an_unknown_recipe_is_refused_with_those_there_are(kind, others):
    for load in (recipe_class, settings_class):
        with pytest.raises(SettingError, match=f"{kind} 'nothing'.*{others}"):
            load("nothing", kind)
    with pytest.raises(SettingError, match="tokenizer 'sasrec' is none of"):
        settings_class("sasrec", "tokenizer")


def test_what_is_given_wins_over_a_preset_and_a_preset_over_the_default():
    def chosen(overrides, **profile):
        own = settings_of("mendertok", Settings(stages={"mendertok": profile}), overrides)
        return own.dense, own.width

    default = chosen({})
    assert default[0]
    assert chosen({"mendertok.preset": "published"}) == (False, default[1])
    assert chosen({"mendertok.preset": "published", "mendertok.width": 32}, dense=True) == (True, 32)
    with pytest.raises(SettingError, match=r"mendertok\.preset is 'big', but mendertok has: published"):
        chosen({}, preset="big")


def test_a_need_says_where_it_is_and_a_switch_what_the_setting_says():
    assert set(TABLES) == set(Need)
    assert {table for tables in TABLES.values() for table in tables} <= set(CONTRACTS)
    for name, entry in RECIPES.items():
        assert PRESET not in settings_class(name, entry.kind).__dataclass_fields__
        for need, switch in entry.switches.items():
            assert need in entry.needs
            defaults = settings_class(name, entry.kind)()
            assert switch.is_on(vars(defaults)) is switch.is_on({}) is switch.default
            assert need not in entry.needs_with({switch.setting: False if switch.when is None else switch.off})
            assert switch.when is not None or need in entry.needs_with({switch.setting: ["some"]})
