"""Prompts as versioned files beside this module; a new wording is a new version and re-asks only what depends on it."""

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
    """One solved case shown to the model before the real one."""

    user: str
    assistant: str


@dataclass(frozen=True, kw_only=True)
class ChatPrompt:
    """A chat prompt with worked examples.

    Args:
        user: template of the user's turn; ``{name}`` stands for a value, which is inserted as it is.
        schemas: JSON schemas by name; the caller says which one an answer must fulfil.
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
        """Its turns with ``{{name}}`` for values, as MLflow's prompt registry has them."""
        return self._turns(_doubled(self.user))

    def _turns(self, last: str) -> list[dict[str, str]]:
        turns = [("system", self.system)]
        for example in self.examples:
            turns += [("user", example.user), ("assistant", example.assistant)]
        return [{"role": role, "content": content} for role, content in (*turns, ("user", last))]

    def example_answers(self, *fields: str) -> list[str]:
        """What the examples' answers hold in `fields`, lines or lists of lines, to recognise a model that copies."""
        answers = [json.loads(example.assistant)[field] for example in self.examples for field in fields]
        return [line for answer in answers for line in (answer if isinstance(answer, list) else [answer])]


@dataclass(frozen=True, kw_only=True)
class TitlePrompt:
    """A text whose natural continuation is an item's title, with other titles before it.

    Args:
        header: first lines.
        line: template of one listed title, ``{title}``.
        bare_header: first lines when no title is known.
        cue: what stands right before the title in question, without a trailing space.
    """

    name: str
    version: str
    header: str
    line: str
    bare_header: str
    cue: str

    def render(self, others: Sequence[str], title: str) -> ScoreRequest:
        """The request for the log-probability of `title` after `others`; of the bare title when there are none."""
        header = self.header if others else self.bare_header
        listed = "".join(self.line.format(title=other) for other in others)
        return ScoreRequest(
            prompt_name=self.name,
            prompt_version=self.version,
            prompt=header + listed + self.cue,
            continuations=(f" {title}",),
        )

    def template(self) -> str:
        """The text with one listed title and ``{{title}}`` for values, as MLflow's prompt registry has it."""
        return self.header + _doubled(self.line) + self.cue + " {{title}}"


def _doubled(template: str) -> str:
    return re.sub(r"\{(\w+)\}", r"{{\1}}", template)


def load_chat_prompt(name: str) -> ChatPrompt:
    """Read a chat prompt by name.

    Raises:
        SettingError: there is no such prompt, or the file lacks something.
        DataError: no prompt can have the name.
    """
    raw = _load(name)
    try:
        examples = tuple(Example(**example) for example in raw.pop("examples"))
        return ChatPrompt(name=name, examples=examples, **raw)
    except (KeyError, TypeError) as error:
        raise SettingError(f"{FOLDER / name}.toml is no chat prompt: {error}") from error


def load_title_prompt(name: str) -> TitlePrompt:
    """Read a title prompt by name.

    Raises:
        SettingError: there is no such prompt, or the file lacks something.
    """
    try:
        return TitlePrompt(name=name, **_load(name))
    except TypeError as error:
        raise SettingError(f"{FOLDER / name}.toml is no title prompt: {error}") from error


def _load(name: str) -> dict[str, Any]:
    path = FOLDER / f"{plain_name(name, 'prompt')}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise SettingError(f"there is no prompt {name!r}; prompts: {known}")
    return tomllib.loads(path.read_text())
