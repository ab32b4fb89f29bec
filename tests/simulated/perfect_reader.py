"""The answers of a model without errors to the project's prompts about a planted world. No HTTP here."""

import itertools
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pipelines.landing.planted_world.mentions import compressed, named_attributes, stems_of
from pipelines.landing.planted_world.truth import DISLIKE, LIKE, TruePosition, Truth
from pipelines.landing.planted_world.vocabulary import ATTRIBUTES
from pipelines.language.validation import VERBS, LineLimits, line_problem, sentiment_of
from schemas.words import words

# Log-probabilities per token (nats): of a title without context, and what a history adds to it.
NEUTRAL, BELONGS, STRAY, PER_MATCH = -2.0, 1.0, -1.0, 0.25
_LONGEST_SUMMARY, _MOST_SUMMARY_WORDS = 200, 50
_NOTHING = "good products"
_MOST_LINES = 3


@dataclass(frozen=True, kw_only=True)
class _Owner:
    """A user whose history a prompt may show."""

    user_id: str
    by_item: dict[str, TruePosition]


class PerfectReader:
    """Looks answers up in the truth; the answer to an unknown question is neutral."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._by_text: dict[str, TruePosition] = {}
        by_user: dict[str, dict[str, TruePosition]] = defaultdict(dict)
        for position in truth.positions.values():
            self._by_text.setdefault(_plain(position.text), position)
            by_user[position.user_id][position.item_id] = position
        self._owners: dict[str, list[_Owner]] = defaultdict(list)
        for user_id, by_item in by_user.items():
            owner = _Owner(user_id=user_id, by_item=by_item)
            for item_id in by_item:
                self._owners[item_id].append(owner)
        self._titles = {_plain(item.title): item.item_id for item in truth.items.values()}
        self._item = lru_cache(maxsize=None)(self._find_item)
        self._gain = lru_cache(maxsize=100_000)(self._find_gain)

    def preference(self, stars: float, text: str) -> str:
        """One line about a review: the phrases of its reasons that agree with its stars.

        The line has as many reasons as the stage accepts; all of them where it accepts no line. A review without such
        a reason, for example of a gift, gets a line that says nothing.
        """
        sentiment = sentiment_of(stars) or LIKE
        kept = self._reasons(sentiment, text)
        verb = VERBS[sentiment]
        lines = [
            f"{verb} {', '.join(some)}"
            for size in range(len(kept), 0, -1)
            for some in itertools.combinations(kept, size)
        ]
        for line in lines:
            if self._problem(line, sentiment, text) is None:
                return line
        return lines[0] if lines else f"{verb} {_NOTHING}"

    def opinions(self, text: str) -> dict[str, list[str]]:
        """All reasons of a review, whatever its stars: a line for each that its writer prefers or avoids."""
        return {
            name: [f"{VERBS[sentiment]} {phrase}" for phrase in self._reasons(sentiment, text)][:_MOST_LINES]
            for name, sentiment in (("prefers", LIKE), ("avoids", DISLIKE))
        }

    def _reasons(self, sentiment: str, text: str) -> list[str]:
        position = self._review(text)
        opinions = position.opinions if position else ()
        phrases = sorted(_phrases(text, (name for kind, name in opinions if kind == sentiment)), key=text.lower().find)
        return [compressed(phrase) for phrase in phrases]

    def _problem(self, line: str, sentiment: str, text: str) -> str | None:
        position = self._review(text)
        return line_problem(
            line,
            sentiment=sentiment,
            review=text,
            title=self._truth.items[position.item_id].title if position else None,
            brand=None,
            examples=(),
            limits=LineLimits(),
        )

    def summary(self, known: str, new: str) -> str:
        """Join phrases, the newest on an attribute last; shortened only as far as the schema demands."""
        parts = [part for text in (known, new.replace(";", ",")) if text != "-" for part in _parts(text)]
        parts = list(dict.fromkeys(parts))
        if not _fits(parts):
            newest: dict[frozenset[str] | str, str] = {}
            for part in parts:
                about = named_attributes(stems_of(part)) or part
                newest.pop(about, None)
                newest[about] = part
            parts = list(newest.values())
        while not _fits(parts):
            parts = parts[1:]
        return ", ".join(parts)

    def title(self, others: Sequence[str], title: str) -> float:
        """Log-probability per token (nats) of a title after other titles of a history."""
        return NEUTRAL + (self._gain(tuple(others), title) if others else 0.0)

    def _review(self, text: str) -> TruePosition | None:
        plain = _plain(text)
        exact = self._by_text.get(plain)
        if exact is not None:
            return exact
        return next((position for whole, position in self._by_text.items() if whole.startswith(plain)), None)

    def _find_item(self, title: str) -> str | None:
        plain = _plain(title)
        found = self._titles.get(plain)
        if found is None:  # long titles are shown cut
            found = next((item_id for whole, item_id in self._titles.items() if whole.startswith(plain)), None)
        return found

    def _find_gain(self, others: tuple[str, ...], title: str) -> float:
        shown = {item_id for other in others if (item_id := self._item(other)) is not None}
        item_id = self._item(title)
        owners = self._who(shown, item_id)
        if item_id is None or not owners:
            return 0.0
        holding = [owner.by_item[item_id] for owner in owners if item_id in owner.by_item]
        if holding:
            return statistics.median(self._held(position) for position in holding)
        return statistics.median(self._candidate(owner, shown, item_id) for owner in owners)

    def _who(self, shown: set[str], item_id: str | None) -> list[_Owner]:
        """Users who have most of the shown items, and at least half; if possible those who have the item, too."""
        counts: Counter[str] = Counter()
        owners = {}
        for other in shown:
            for owner in self._owners[other]:
                counts[owner.user_id] += 1
                owners[owner.user_id] = owner
        most = max(counts.values(), default=0)
        if not most or 2 * most < len(shown):
            return []
        best = [owners[user_id] for user_id, count in counts.items() if count == most]
        return [owner for owner in best if item_id in owner.by_item] or best

    def _held(self, position: TruePosition) -> float:
        """Gain of an item that the user has: by whether it is noise and, less, by how well it suits."""
        suits = PER_MATCH * self._truth.match(position.taste, position.item_id) / 5
        return suits + (STRAY if position.is_noise else BELONGS)

    def _candidate(self, owner: _Owner, shown: set[str], item_id: str) -> float:
        """Gain of an item that the user does not have, by the taste at the position that the prompt omits."""
        middle = statistics.median(owner.by_item[other].position for other in shown & owner.by_item.keys())
        hidden = [position for other, position in owner.by_item.items() if other not in shown]
        place = min(
            hidden or owner.by_item.values(), key=lambda p: (not p.is_noise, abs(p.position - middle), p.position)
        )
        return PER_MATCH * self._truth.match(place.taste, item_id)


def _plain(text: str) -> str:
    return " ".join(word.lower() for word in words(text))


def _phrases(text: str, names: Iterable[str]) -> list[str]:
    """The longest phrase of the vocabulary by which a text names each attribute."""
    found = []
    for name in names:
        attribute = ATTRIBUTES[name]
        phrases = (*attribute.praised, *attribute.complained, attribute.adjective)
        phrase = next((p for p in sorted(phrases, key=len, reverse=True) if p.lower() in text.lower()), None)
        if phrase is not None:  # the cut may have taken it away
            found.append(phrase)
    return found


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _fits(parts: Sequence[str]) -> bool:
    text = ", ".join(parts)
    return len(text) <= _LONGEST_SUMMARY and len(words(text)) <= _MOST_SUMMARY_WORDS
