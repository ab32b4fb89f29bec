"""The pages of the manual: their tables are those of the code, and their links lead somewhere."""

import re

import pytest

from infra.command_line import COMMANDS
from infra.commands import pages
from infra.commands.pages import filled
from infra.commands.sections import kinds
from infra.errors import SettingError
from infra.setting_docs import describe
from infra.settings import REPOSITORY
from schemas.recipes import RECIPES
from schemas.sections import SECTIONS
from schemas.stages import RECIPE, STAGES

PAGES = [*pages.pages(), REPOSITORY / "schemas" / "GLOSSARY.md", REPOSITORY / "tests" / "README.md"]
NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_tables_are_current(page):
    text = page.read_text()
    assert filled(text) == text, "run `penchant settings --write`"


def test_every_section_of_settings_and_every_recipe_stands_in_one_page():
    shown = [what for page in PAGES for what in re.findall(r"<!-- made: ([^>]+?) -->", page.read_text())]
    profile = {
        f"profile {name}" for name, classes in kinds().items() if name not in {*SECTIONS, *RECIPES} or classes[1:]
    }
    wanted = {f"settings {name}" for name in SECTIONS} | profile | {f"recipes {one.kind}" for one in RECIPES.values()}
    assert sorted(shown) == sorted(wanted | {"stages", "tables"})


def test_every_setting_has_a_meaning():
    assert not [
        f"{section}.{setting.name}"
        for section, classes in kinds().items()
        for kind in classes
        for setting in describe(kind)
        if not setting.meaning
    ]


def test_every_section_that_a_stage_reads_has_a_class():
    read = {section for stage in STAGES.values() for section in stage.sections} - {RECIPE}
    assert read <= set(SECTIONS)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)
            known = {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings}
            assert heading in known, target


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_that_pages_show_exist(page):
    for command in re.findall(r"(?:^|`|bin/)penchant ([a-z][a-z-]*)", page.read_text(), re.MULTILINE):
        assert command in COMMANDS, command


def test_a_page_that_asks_for_an_unknown_table_is_named():
    with pytest.raises(SettingError, match="no section 'ingset'"):
        filled("<!-- made: settings ingset -->\n<!-- end -->")
    with pytest.raises(SettingError, match="no table 'nonsense'; there are settings"):
        filled("<!-- made: nonsense -->\n<!-- end -->")
    with pytest.raises(SettingError, match="no <!-- end --> after <!-- made: stages"):
        filled("<!-- made: stages -->\n| stage |")


def test_write_brings_pages_up_to_date(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("Before\n<!-- made: settings clean_up -->\nold\n<!-- end -->\nAfter\n")
    assert pages.write(tmp_path) == [page]
    assert pages.write(tmp_path) == []
    text = page.read_text()
    assert "| `keep_versions` | `10` |" in text
    assert "old\n" not in text
    assert text.startswith("Before\n")
    assert text.endswith("\nAfter\n")
