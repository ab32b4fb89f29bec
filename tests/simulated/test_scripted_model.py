"""The model without errors answers with the truth, through the project's own prompts and port."""

import json
import statistics
import subprocess
import sys
from itertools import combinations

import pytest

from infra.settings import LLMSettings
from pipelines.landing.planted_world import WorldSettings, grow_world, write_world
from pipelines.landing.planted_world.mentions import named_attributes, stems_of
from pipelines.landing.planted_world.truth import read_truth
from pipelines.landing.planted_world.vocabulary import ATTRIBUTES, CATEGORIES
from pipelines.language.port import Port
from pipelines.language.prompts import load_chat_prompt, load_title_prompt
from pipelines.language.requests import ScoreRequest
from pipelines.language.validation import SummaryLimits, sentiment_of, summary_problem
from tests.simulated.perfect_reader import NEUTRAL
from tests.simulated.scripted_model import serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(grow_world(WorldSettings(users=60, items=64)), folder)
    return folder / "truth"


@pytest.fixture(scope="module")
def truth(folder):
    return read_truth(folder)


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder) as server:
        yield server


def port(server, scoring="grammar"):
    return Port(LLMSettings(base_url=server.base_url, model="scripted", scoring=scoring, max_attempts=1))


def histories(truth):
    found = {}
    for p in sorted(truth.positions.values(), key=lambda p: (p.user_id, p.position)):
        found.setdefault(p.user_id, []).append(p)
    return found


def cut(truth, item_id, words=12):
    return " ".join(truth.items[item_id].title.split()[:words])


def test_phrases_of_the_vocabulary_name_their_attribute_and_no_other():
    pairs = {tuple(sorted(pair)) for c in CATEGORIES for pair in combinations(c.attributes, 2)}
    for name, attribute in ATTRIBUTES.items():
        for phrase in (attribute.adjective, attribute.label, *attribute.praised, *attribute.complained):
            assert named_attributes(stems_of(f"Prefers {phrase}")) == {name}, phrase
    tried = wrong = 0
    for first, second in pairs:
        for one in ATTRIBUTES[first].praised:
            for other in ATTRIBUTES[second].praised:
                tried += 1
                wrong += named_attributes(stems_of(f"Prefers {one}, {other}")) != {first, second}
    assert wrong < 0.005 * tried
    for nothing in ("Prefers cables", "Avoids guitars", "Prefers coffee and tea gear", "Avoids thin tents"):
        assert not named_attributes(stems_of(nothing))


def test_lines_give_the_reasons_of_a_review_and_nothing_else(server, truth):
    prompt = load_chat_prompt("review_preference")
    asked = [p for p in truth.positions.values() if sentiment_of(p.stars)]
    requests = [
        prompt.render(sentiment_of(p.stars), stars=f"{p.stars:g}", text=p.text.replace("'", "\u2019")) for p in asked
    ]
    answers = port(server).answer(requests)
    assert {a.status for a in answers} == {"ok"}
    whole = silent = 0
    for p, answer in zip(asked, answers, strict=True):
        wanted = {name for sentiment, name in p.opinions if sentiment == sentiment_of(p.stars)}
        told = named_attributes(stems_of(json.loads(answer.text)["preference"]))
        assert told <= wanted, p.text
        whole += told == wanted
        silent += not wanted
    assert silent > 20  # gifts, mistakes, and shelves without a reason
    assert whole > 0.9 * len(asked)


def test_a_cut_review_gives_only_the_reasons_that_are_left(server, truth):
    prompt = load_chat_prompt("review_preference")
    both = next(p for p in truth.positions.values() if p.stars >= 4 and len(p.opinions) == 2 and "quiet" in str(p))
    words = both.text.split()
    answers = port(server).answer(
        [prompt.render("like", stars="5", text=" ".join(words[:size])) for size in range(3, len(words) + 1)]
    )
    sizes = [len(named_attributes(stems_of(json.loads(a.text)["preference"]))) for a in answers]
    assert sizes == sorted(sizes)
    assert sizes[0] == 0


def test_folds_keep_everything_within_the_schema(server, truth):
    prompt = load_chat_prompt("summary_fold")
    known, named = "-", set()
    praised = [attribute.praised[0].replace("the ", "") for attribute in list(ATTRIBUTES.values())[:8]]
    for phrase in praised:
        new = f"{phrase}, {praised[0]}"
        (answer,) = port(server).answer([prompt.render("phrase", known=known, new=f"{new}; {phrase}")])
        assert answer.status == "ok", answer.error
        summary = json.loads(answer.text)["summary"]
        before = "" if known == "-" else known
        assert summary_problem(summary, known=before, new=[new], limits=SummaryLimits()) is None
        known = summary
        named |= named_attributes(stems_of(phrase))
        assert named <= {name for part in known.split(", ") for name in named_attributes(stems_of(part))}


@pytest.mark.parametrize("scoring", ["grammar", "echo"])
def test_titles_of_noise_are_unlikely_and_replacements_follow_the_taste(server, truth, scoring):
    prompt, model = load_title_prompt("title_likelihood"), port(server, scoring)
    title = next(iter(truth.items.values())).title
    bare = model.answer([prompt.render([], title)])[0]
    assert bare.logprobs[0] / bare.token_counts[0] == pytest.approx(NEUTRAL)

    def means(requests):
        answers = model.answer(requests)
        return [[t / n for t, n in zip(a.logprobs, a.token_counts, strict=True)] for a in answers]

    requests, noise, candidates, suits = [], [], [], []
    for history in list(histories(truth).values())[:25]:
        for p in history:
            others = [cut(truth, q.item_id) for q in history if q is not p and abs(q.position - p.position) <= 4]
            requests.append(prompt.render(others, cut(truth, p.item_id)))
            noise.append(p.is_noise)
            if p.is_noise:
                free = [i for i in truth.items if i not in {q.item_id for q in history}][:12]
                prompted = prompt.render(others, "x").prompt
                each = tuple(f" {cut(truth, item)}" for item in free)
                candidates.append(
                    ScoreRequest(prompt_name="t", prompt_version="1", prompt=prompted, continuations=each)
                )
                suits.append([truth.match(p.taste, item) > 0 for item in free])
    values = [value for (value,) in means(requests)]
    assert sum(noise) > 10
    assert max(v for v, n in zip(values, noise, strict=True) if n) < NEUTRAL
    assert min(v for v, n in zip(values, noise, strict=True) if not n) > NEUTRAL
    right = [
        (value > NEUTRAL) == suit
        for row, told in zip(means(candidates), suits, strict=True)
        for value, suit in zip(row, told, strict=True)
    ]
    assert statistics.mean(right) > 0.9


def test_what_is_no_prompt_of_the_project_is_refused(server):
    score = ScoreRequest(prompt_name="", prompt_version="", prompt="no list", continuations=("",))
    (answer,) = port(server).answer([score])
    assert "under a grammar of token ids only" in answer.error
    request = load_chat_prompt("summary_fold").render("phrase", known="-", new="x")
    other = type(request)(**{**vars(request), "messages": ({"role": "user", "content": "hello"},)})
    (answer,) = port(server).answer([other])
    assert (answer.status, "neither a review nor a fold" in answer.error) == ("failed", True)


def test_the_command_line_prints_its_address(folder):
    command = [sys.executable, "-m", "tests.simulated.scripted_model", "--truth"]
    with subprocess.Popen([*command, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().strip()
        process.terminate()
    assert address.startswith("http://127.0.0.1:")
    failed = subprocess.run([*command, str(folder.parent)], capture_output=True, text=True)
    assert failed.returncode == 2
    assert "no items.jsonl" in failed.stderr
