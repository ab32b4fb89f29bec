"""What is said of users at training positions: texts beside the parts of histories that they rest on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ray_jobs.data.examples import Examples, examples_at
from ray_jobs.data.histories import Histories
from schemas.preferences import join_preferences
from schemas.recipes import TextsOfUsers


def examples_with_texts(
    histories: Histories, max_history: int, which: TextsOfUsers, titles: Sequence[str] = ()
) -> Examples:
    """Training examples before whose target something new is said of the user: that text is their `preferences`.

    A text at a position rests on reviews up to it, and the target is at the position after it, a training position as
    well. So neither texts nor histories nor targets hold anything of what is held out.

    Args:
        max_history: a history keeps its last `max_history` items.
        titles: of the items of the catalogue, for ``titles``.
    """
    rows: list[tuple[int, int]] = []
    texts: list[str] = []
    for user, end in enumerate(histories.training_ends.tolist()):
        said: Iterable[tuple[int, Sequence[str]]]
        if which == "titles":
            own = [titles[item] for item in histories.items[user][: max(0, end - 1)].tolist()]
            said = ((at, own[max(0, at + 1 - max_history) : at + 1]) for at in range(len(own)))
        else:
            said = _newest(_notes(histories, user, which), end - 1)
        for position, parts in said:
            if text := join_preferences(parts):
                rows.append((user, position + 1))
                texts.append(text)
    return examples_at(histories, rows, max_history).with_preferences(texts)


def _notes(histories: Histories, user: int, which: TextsOfUsers) -> list[Mapping[int, tuple[str, ...]]]:
    summaries = histories.summaries[user] if len(histories.summaries) else {}
    known = {"summaries": summaries, "preferences": histories.preferences[user]}
    return [notes for name, notes in known.items() if which in (name, "both")]


def _newest(notes: Sequence[Mapping[int, tuple[str, ...]]], end: int) -> Iterator[tuple[int, list[str]]]:
    """Positions before `end` with a note, and the newest notes of each kind up to them."""
    newest: list[tuple[str, ...]] = [() for _ in notes]
    for position in sorted({at for known in notes for at in known if at < end}):
        newest = [known.get(position, before) for known, before in zip(notes, newest, strict=True)]
        yield position, [part for parts in newest for part in parts]
