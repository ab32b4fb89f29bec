"""Which properties become probes, and in which words."""

import re

from pipelines.landing.planted_world.truth import TrueItem, Truth
from pipelines.landing.planted_world.vocabulary import ATTRIBUTES
from pipelines.steering.probes import attribute_line, attribute_probes, category_probes


def test_leaf_and_inner_categories_of_the_right_size_become_probes():
    paths = {f"i{n}": ["Shop", "Sound" if n < 4 else "Light", f"Leaf {n % 2}" if n < 3 else "rest"] for n in range(9)}
    paths["i9"] = []
    probes = {probe["probe"]: probe for probe in category_probes(paths, 2)}
    assert {name: probe["item_ids"] for name, probe in probes.items()} == {
        "Sound": ["i0", "i1", "i2", "i3"],
        "Light": ["i4", "i5", "i6", "i7", "i8"],
        "Leaf 0": ["i0", "i2"],
    }  # everything but one is in the shop, and more than half is in the rest
    assert (probes["Sound"]["preference"], probes["Sound"]["opposite"]) == ("Prefers sound", "Avoids sound")
    assert {probe["kind"] for probe in probes.values()} == {"category"}


def test_attributes_of_a_planted_world_are_worded_as_the_perfect_reader_words_them():
    def item(number, *attributes):
        return TrueItem(item_id=f"i{number}", title="", category="", attributes=attributes)

    items = [item(1, "compact", "quiet"), item(2, "compact"), item(3, "quiet", "budget_price"), item(4, "budget_price")]
    truth = Truth(items={one.item_id: one for one in items}, positions={})
    probes = attribute_probes(truth, ["i1", "i2", "i4", "stranger"], 2)
    assert probes == [
        {
            "probe": "compact",
            "kind": "attribute",
            "preference": "Prefers compact size",
            "opposite": "Avoids tiny compact size",
            "item_ids": ["i1", "i2"],
        }
    ]


def test_only_a_low_price_is_never_spoken_of():
    lines = {name: (attribute_line("like", name), attribute_line("dislike", name)) for name in ATTRIBUTES}
    assert [name for name, spoken in lines.items() if None in spoken] == ["budget_price"]
    for wanted, rejected in (spoken for name, spoken in lines.items() if name != "budget_price"):
        assert re.fullmatch(r"Prefers \w.*", wanted)
        assert re.fullmatch(r"Avoids \w.*", rejected)
