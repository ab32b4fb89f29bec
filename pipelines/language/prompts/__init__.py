"""Versioned prompts, read from the files beside this module. A new version invalidates the answers to the old one."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import SettingError
from pipelines.language.requests import ChatRequest, ScoreRequest
from schemas.names import plain_name

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Example:
    """A worked example shown to the model before the request."""

    user: str
    assistant: str


@dataclass(frozen=True, kw_only=True)
class ChatPrompt:
    """A chat prompt with worked examples.

    Args:
        user: template of the user's turn with placeholders ``{name}``.
        schemas: JSON schemas of answers by name; the caller chooses one.
    """

    name: str
    version: str
    system: str
    user: str
    max_tokens: int
    examples: tuple[Example, ...]
    schemas: Mapping[str, Mapping[str, Any]]

    def render(self, schema: str, **values: str) -> ChatRequest:
        """The request for one set of values."""
        return ChatRequest(
            prompt_name=self.name,
            prompt_version=self.version,
            messages=tuple(self._turns(self.user.format(**values))),
            max_tokens=self.max_tokens,
            schema=self.schemas[schema],
        )

    def template(self) -> list[dict[str, str]]:
        """The turns with placeholders ``{{name}}``, the format of MLflow's prompt registry."""
        return self._turns(_doubled(self.user))

    def _turns(self, last: str) -> list[dict[str, str]]:
        turns = [("system", self.system)]
        for example in self.examples:
            turns += [("user", example.user), ("assistant", example.assistant)]
        return [{"role": role, "content": content} for role, content in (*turns, ("user", last))]

    def example_answers(self, *fields: str) -> list[str]:
        """The lines in `fields` of the examples' answers, to recognise a model that copies them."""
        answers = [json.loads(example.assistant)[field] for example in self.examples for field in fields]
        return [line for answer in answers for line in (answer if isinstance(answer, list) else [answer])]


@dataclass(frozen=True, kw_only=True)
class TitlePrompt:
    """A text whose natural continuation is an item's title, with other titles before it.

    Args:
        header: first lines.
        line: template of one listed title, ``{title}``.
        bare_header: first lines if no other title is given.
        cue: text right before the title to score, without a trailing space.
    """

    name: str
    version: str
    header: str
    line: str
    bare_header: str
    cue: str

    def render(self, others: Sequence[str], title: str) -> ScoreRequest:
        """The request for the log-probability of `title` after `others`, which may be empty."""
        header = self.header if others else self.bare_header
        listed = "".join(self.line.format(title=other) for other in others)
        return ScoreRequest(
            prompt_name=self.name,
            prompt_version=self.version,
            prompt=header + listed + self.cue,
            continuations=(f" {title}",),
        )

    def template(self) -> str:
        """The text with one listed title and placeholders ``{{title}}``, the format of MLflow's prompt registry."""
        return self.header + _doubled(self.line) + self.cue + " {{title}}"


def _doubled(template: str) -> str:
    return re.sub(r"\{(\w+)\}", r"{{\1}}", template)


def load_chat_prompt(name: str) -> ChatPrompt:
    """Read a chat prompt by name.

    Raises:
        SettingError: there is no such prompt, or the file is incomplete.
        DataError: the name is not a plain name.
    """
    raw = _load(name)
    try:
        examples = tuple(Example(**example) for example in raw.pop("examples"))
        return ChatPrompt(name=name, examples=examples, **raw)
    except (KeyError, TypeError) as error:
        raise SettingError(f"{FOLDER / name}.toml is not a chat prompt: {error}") from error


def load_title_prompt(name: str) -> TitlePrompt:
    """Read a title prompt by name; errors as `load_chat_prompt`."""
    try:
        return TitlePrompt(name=name, **_load(name))
    except TypeError as error:
        raise SettingError(f"{FOLDER / name}.toml is not a title prompt: {error}") from error


def _load(name: str) -> dict[str, Any]:
    path = FOLDER / f"{plain_name(name, 'prompt')}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise SettingError(f"there is no prompt {name!r}; prompts: {known}")
    return tomllib.loads(path.read_text())
