import time

import pytest

from ray_jobs.steering.sentences import MOST_CHARACTERS, read_sentence


@pytest.mark.parametrize(
    ("sentence", "wanted", "refused"),
    [
        ("Prefers quiet, compact things. Avoids wood.", ["quiet", "compact"], ["wood"]),
        ("something quiet and compact, anything but wood", ["quiet", "compact"], ["wood"]),
        ("I need it quiet, not too big, without wood", ["quiet"], ["big", "wood"]),
        ("not too heavy", [], ["heavy"]),
        ("quiet, not heavy, compact", ["quiet", "compact"], ["heavy"]),
        ("Avoids wood, plastic and glue", [], ["wood", "plastic", "glue"]),
        ("I don't like bright tones but love bass", ["bass"], ["bright tones"]),
        ("I\u2019d rather avoid anything heavy", [], ["heavy"]),
        ("I can't stand the harsh, bright tone", [], ["harsh", "bright tone"]),
        ("I hate cables; wireless please", ["wireless"], ["cables"]),
        ("no wood but steel", ["steel"], ["wood"]),
        ("Prefers steel instead of wood", ["steel"], ["wood"]),
        ("nothing but steel", ["steel"], []),
        ("not only quiet but compact", ["quiet", "compact"], []),
        ("don't mind plastic, prefer wood", ["wood"], []),
        ("less bass, more treble", ["treble"], ["bass"]),
        ("no cables or adapters", [], ["cables", "adapters"]),
        ("Prefers plastic-free packaging", ["packaging"], ["plastic"]),
        ("doesnt like wood", [], ["wood"]),
        ("wood? no thanks", [], ["wood"]),
        ("wood is not for me", [], ["wood"]),
        ("non-wooden, too loud, fewer cables", [], ["wooden", "loud", "cables"]),
        ("stop showing me wood", [], ["wood"]),
        ("Dislikes: wireless", [], ["wireless"]),
        ("I don't want plastic, wood would be great", ["wood"], ["plastic"]),
        ("Avoids everything except wood", ["wood"], []),
        ("I can't live without wood", ["wood"], []),
        ("quiet but not quiet", [], []),
        ("compact enough for a shelf", ["compact enough for a shelf"], []),
        (
            "I am furnishing a small flat where the baby sleeps next door so it has to be quiet",
            ["furnishing a small flat", "baby sleeps next door", "quiet"],
            [],
        ),
        ("None", [], []),
        ("", [], []),
        ("  ...  ", [], []),
        ("NONE!", [], []),
        ("None, thanks", [], []),
        ("12", [], []),
        ("\ud800 \x00 \u202e", [], []),
    ],
)
def test_what_a_sentence_asks_for_and_refuses(sentence, wanted, refused):
    found = read_sentence(sentence)
    assert (list(found.wanted), list(found.refused)) == (wanted, refused)


@pytest.mark.parametrize("unit", ["not to ", "a,", "do not really ", "- ", "any ", ". ", "never to be to have "])
def test_reading_takes_linear_time(unit):
    begun = time.process_time()
    read_sentence(unit * (100_000 // len(unit)))
    assert time.process_time() - begun < 1, f"only the first {MOST_CHARACTERS} characters are read, in one pass"
