"""What a condition may say, and what is said about one that cannot be read."""

import ast

import pytest

from schemas.errors import DataError
from schemas.item_conditions import ATTRIBUTES, read_condition
from schemas.items import ITEMS


@pytest.mark.parametrize(
    "text",
    [
        'brand == "Fender" and price < 50',
        ' not ("Guitars" in categories or price >= 1.5e3) ',
        'brand in ["A", "B"] and price != -1',
        "price in (1, 2.5)",
    ],
)
def test_a_condition_is_read(text):
    assert isinstance(read_condition(text), ast.expr)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("brand = 'Fender'", "is no condition"),
        ("", "is no condition"),
        ("brand", "'brand' is no comparison of an attribute; write it like"),
        ("colour == 'red'", "'colour' is no attribute of items; there are brand, categories, price"),
        ("brand == 5", "'brand' is a text, which is not compared with 5.0"),
        ("price < '5'", "'price' is a number, which is not compared with '5'"),
        ("price < True", "'True' is neither a text in quotes nor a number"),
        ("categories == 'Guitars'", "'categories' is a list of texts; ask"),
        ("'Guitars' in brand", "'brand' holds no list of texts"),
        ("5 in categories", "'categories' holds no list of texts"),
        ("brand in ['A', 5]", "'brand' is a text, which is not compared with 5.0"),
        ("1 < price < 5", "is no comparison of an attribute"),
        ("price < brand", "'brand' is neither a text in quotes nor a number"),
        ("brand is 'Fender'", "'brand' is compared by =="),
        ("__import__('os').system('true') == 'x'", "is no attribute of items"),
        ("price + 1 < 5", r"'price \+ 1' is no attribute of items"),
        ("(lambda: price)() < 5", "is no attribute of items"),
        ("(" * 900 + "price < 5" + ")" * 900, "condition"),
        ("not " * 240 + "price < 5 and", "condition"),
        ("\x00", "cannot be read|is no condition"),
    ],
)
def test_anything_else_is_refused_with_the_part_and_the_remedy(text, told):
    with pytest.raises(DataError, match=told):
        read_condition(text)


def test_attributes_are_columns_of_items():
    assert set(ATTRIBUTES) <= {column.name for column in ITEMS.columns}
