from pipelines.language.merging import Line, Preference, merge_lines, preferences_by_position


def line(position, text):
    return Line(position=position, text=text, sentiment="like" if text.startswith("Prefers") else "dislike")


def merged(*lines, most=5):
    return merge_lines(lines, most=most, same_from=0.6)


def test_newest_first_and_near_duplicates_add_their_evidence():
    found = merged(line(0, "Prefers warm wool socks"), line(1, "Avoids thin towels"), line(3, "Prefers wool socks"))
    assert found == [
        Preference(text="Prefers wool socks", sentiment="like", evidence=(0, 3)),
        Preference(text="Avoids thin towels", sentiment="dislike", evidence=(1,)),
    ]


def test_a_short_newer_line_does_not_swallow_a_longer_older_one():
    found = merged(line(0, "Prefers near silent operation, compact size"), line(1, "Prefers compact size"))
    assert [(p.text, p.evidence) for p in found] == [
        ("Prefers compact size", (1,)),
        ("Prefers near silent operation, compact size", (0,)),
    ]


def test_two_lines_of_one_review_are_one_piece_of_evidence():
    found = merged(line(2, "Prefers wool socks"), line(2, "Prefers wool socks"), line(2, "Avoids tin plates"))
    assert [(p.text, p.evidence) for p in found] == [("Prefers wool socks", (2,)), ("Avoids tin plates", (2,))]


def test_a_newer_mind_replaces_an_older_one():
    found = merged(line(0, "Prefers wireless mice"), line(2, "Avoids wireless mice"))
    assert found == [Preference(text="Avoids wireless mice", sentiment="dislike", evidence=(2,))]


def test_at_most_so_many_are_kept():
    names = ["red cups", "blue plates", "green forks", "brass horns", "oak desks", "silk ties"]
    found = merged(*(line(i, f"Prefers {name}") for i, name in enumerate(names)), most=5)
    assert [p.text for p in found] == [f"Prefers {name}" for name in reversed(names[1:])]


def test_a_position_never_looks_ahead_and_forgets_what_is_older_than_the_window():
    lines = {0: [line(0, "Prefers red cups")], 1: [line(1, "Avoids tin plates")], 3: [line(3, "Prefers oak desks")]}
    by_position = preferences_by_position(lines, 5, window=2, most=5, same_from=0.6)
    assert [[p.text for p in found] for found in by_position] == [
        ["Prefers red cups"],
        ["Avoids tin plates", "Prefers red cups"],
        ["Avoids tin plates"],
        ["Prefers oak desks"],
        ["Prefers oak desks"],
    ]
