from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from infra.setting_docs import as_markdown, as_text, describe


@dataclass(frozen=True, kw_only=True)
class Base:
    """What all have.

    Args:
        seed: of the drawing.
        width, height: of the window;
            in pixels.
    """

    seed: int = 0
    width: Annotated[int, Field(ge=1)] = 20
    height: Annotated[int, Field(ge=1, lt=100_000)] = 10


@dataclass(frozen=True, kw_only=True)
class Own(Base):
    """Adds to it.

    Args:
        seed: where it begins, see ``random``.
        share: of the users.

    Raises:
        Nothing: never.
    """

    share: Annotated[float, Field(gt=0, le=1)] | None = None
    words: tuple[Literal["a", "b"], ...] = ()
    silent: bool = False


def test_settings_say_default_bounds_and_meaning():
    found = {one.name: one for one in describe(Own)}
    assert list(found) == ["seed", "width", "height", "share", "words", "silent"]
    assert found["seed"].meaning == "where it begins, see `random`."
    assert found["width"].meaning == found["height"].meaning == "of the window; in pixels."
    assert (found["height"].takes, found["height"].default) == ("whole number from 1 below 100,000", "10")
    assert (found["share"].takes, found["share"].default) == ("number above 0 to 1 or null", "null")
    assert (found["words"].takes, found["words"].default) == ("list of `a`, `b`", "[]")
    assert (found["silent"].takes, found["silent"].meaning) == ("true or false", "")


def test_settings_are_shown_for_a_terminal_and_for_a_page():
    text = as_text("own", describe(Own), {"seed": 7})
    assert "own.seed: whole number (default 0; 7 in this profile)\n      where it begins" in text
    assert "| `width` | `20` | whole number from 1 | of the window; in pixels. |" in as_markdown(describe(Own))
