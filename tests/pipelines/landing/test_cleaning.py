"""Cleaning of titles, texts, prices, brands and categories of product pages."""

import re
import sys

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipelines.items import clean_item, item_text
from pipelines.landing import markup
from pipelines.landing.cleaning import (
    _TAIL_OF_A_TAG,
    clean_brand,
    clean_categories,
    clean_description,
    clean_price,
    clean_text,
    clean_title,
)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Tern &amp; Vale", "Tern & Vale"),
        ("twice &amp;quot;escaped&amp;quot;", 'twice "escaped"'),
        ("12&#34; &lt;b&gt;long&lt;/b&gt;", '12" long'),
        ("one.<br />Two\n\t three\u00a0four", "one. Two three four"),
        ("a <!-- hidden > --> b<script>var x = '<p>';</script> c<style>p{}</style>", "a b c"),
        ("3 < 4 and I <3 it > all", "3 < 4 and I <3 it > all"),
        ("cut <script>var x = 1", "cut"),
        ("cut <script src='a.js'> once", "cut"),
        ("cut <STYLE>.a-box, p > a { color : red", "cut"),
        ("cut &lt;style&gt; @media print { p {", "cut"),
        ("cut <script>(function(){ if", "cut"),
        ("cut <script>\n  window.dataLayer = window", "cut"),
        ("cut <script>document.write('x", "cut"),
        ('cut <script>{"name": 1', "cut"),
        ("cut <script>/* <![CDATA[ */", "cut"),
        ("I wrote <script> once, and more words follow", "I wrote <script> once, and more words follow"),
        ("the <style> of it (a {curly} one); <b>nice</b>", "the <style> of it (a {curly} one); nice"),
        ("no </script> here <script> (one)", "no here <script> (one)"),
        ("the <script> item(s) of <v> and <w>", "the <script> item(s) of <v> and <w>"),
        ("a <script> once. <script>var x=1;</script> end", "a <script> once. end"),
        ("a<script>x = '<script src=b>';</script> end", "a end"),
        ("it ends in <script>", "it ends in <script>"),
        ("a </script> b <style>let me say", "a b <style>let me say"),
        ("foo <ns:thing> bar</ns:thing> <b:c x='1'>", "foo <ns:thing> bar</ns:thing> <b:c x='1'>"),
        ("a<o:p></o:p><v:shape id='1'>b</v:shape><st1:place>c</st1:place><W:Sdt>d", "a b c d"),
        ("reliable.Great for gigs!Buy v1.5 at shop.example", "reliable. Great for gigs! Buy v1.5 at shop.example"),
        ("bell\x07 and \u200bzero", "bell and zero"),
        ("temp <five degrees or >ten is bad", "temp <five degrees or >ten is bad"),
        ("&amp;lt;b&amp;gt; bold, &notice &copy; &#99999999;", "bold, &notice \u00a9 &#99999999;"),
        ("see www.Example.Com/page and Last.Fm", "see www.Example.Com/page and Last.Fm"),
        ("<table>one<tr>two<td width=3>three</table>four", "one two three four"),
        ("<a href='shop>this</a> out, it isn't bad", "this out, it isn't bad"),
        ("I <!-- love it", "I <!-- love it"),
        ("<iframe src=x>a & b<o:p></o:p>c</b>d", "a & b c d"),
        ("<!doctype html><p align=left>text", "text"),
        ("a <b>\ud800</b>", "a ?"),
        ("&#" + "9" * 5000 + ";", "&#" + "9" * 5000 + ";"),
        (None, ""),
        ("  ", ""),
    ],
)
def test_texts(raw, clean):
    assert clean_text(raw) == clean


@pytest.mark.parametrize(
    "junk",
    [
        '<span class="a-size-medium a-color-secondary"',
        ' Magazines" />',
        "var aPageStart = (new Date()).getTime();",
        ".a-box-inner{background-color:#fff}",
        "P.when('A').execute(function(A){})",
        "&lt;span class=&quot;a-size-medium",
        "No Title",
        "  ",
        "---",
        "\u2013 \u2014",
        "\u200e",
        '">',
        None,
    ],
)
def test_junk_titles_are_none(junk):
    assert clean_title(junk) is None


@pytest.mark.parametrize(
    "title",
    [
        "Rolling Stone June 2014{the Country Issue}",
        "C# in a #1 {new} edition",
        "Size < Medium",
        "R.E.M. - Up",
        "Privacy film for any window. 2 pack",
        "Leather folder for your document. A4",
        "Node.js in Action: function (and form)",
        "Else Heart.Break()",
        "Last.Fm Gift Card",
        "Jacket size <M",
        "Jacket size <S or >XL",
        "by Terry lipstick",
        "T-shirt #1 {red}: cotton",
        "Emoji pillow :/>",
        "P.when(Night)",
        "White-size a-size-8 shoes",
        "Section 8: a-section-2 novel",
        "Null Modem Cable",
        "7",
        "!!!",
        "\u00f7",
        "\u2605",
        "( )",
        ">_<",
        "?",
        f"Lamp <a{' x=' * 60} <",
    ],
)
def test_odd_titles_stay(title):
    assert clean_title(title) == title


_LETTERS = st.text(st.characters(exclude_categories=("Cs", "Co", "Cn")), max_size=40)
_ODD = st.sampled_from(["<", "</", "<3 ", " <x", "<M>", "<five ", "&", "&x;", "&&", "window.", "document.",
                        "function (", "by ", "{a: b}", ".x ", "#1", "/>", "-->", "a.Bc", "\u200b", "\n"])  # fmt: skip
_NO_MARKUP = st.lists(st.one_of(_ODD, _LETTERS), max_size=8).map("".join).filter(
    lambda text: not re.search(r"<[/!]?[a-z]", re.sub(r"<(?=x|M>|five )", "", text), re.IGNORECASE)
    and not re.search(r"&(#|[a-z])[a-z0-9]+;", text, re.IGNORECASE)
)  # fmt: skip
_SPACES = dict.fromkeys((*range(0x21), 0x7F, 0x200B, 0xFEFF))


def _words_only(text):
    return "".join(text.translate(_SPACES).split())


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(text=_NO_MARKUP)
def test_a_text_without_markup_is_changed_in_its_white_space_only(text):
    assert _words_only(clean_text(text)) == _words_only(text)
    assume(not clean_text(text).endswith(_TAIL_OF_A_TAG))
    title = clean_title(f"Lamp {text}")
    assert title is not None
    assert _words_only(title) == _words_only(f"Lamp {text}")
    assert clean_brand(f"Lamp {text}") == title


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(
    words=st.lists(
        st.sampled_from(["one", "a<b", "I <3 it", "\u8336", "R&D", "5 > 3", "it's"]), min_size=1, max_size=6
    ),
    tags=st.lists(
        st.sampled_from(["<b>", "</p>", "<br />", "<td width='5'>", "<a href=\"x\">", "<!-- x -->", "<o:p>",
                         "<script>var a = '<b>';</script>", "<textarea>", "<IMG SRC=a.png/>"]),
        min_size=6, max_size=6,
    ),
)  # fmt: skip
def test_markup_goes_and_every_word_beside_it_stays_in_order(words, tags):
    marked = "".join(word + tag for word, tag in zip(words, tags, strict=False))
    assert clean_text(marked) == " ".join(words)


@pytest.mark.parametrize(
    ("raw", "price"),
    [
        ("$1,299.00", 1299.0),
        ("$9.99 - $19.99", 9.99),
        ("from 14.99", 14.99),
        ("$.99", 0.99),
        ("12.50 USD", 12.5),
        (7.09, 7.09),
        (3, 3.0),
        ("7.09", 7.09),
        ("", None),
        ("\u2014", None),
        ("None", None),
        ("1.2.3", None),
        ("1,29", None),
        ("1.299,00 \u20ac", 1299.0),
        ("12,99 \u20ac", 12.99),
        ("1.299 EUR", 1299.0),
        ("\u20ac 1.299", 1299.0),
        ("1.299 - 1.499 \u20ac", 1299.0),
        ("\u20ac12,99", 12.99),
        ("1.299.000", 1299000.0),
        ("1.299", 1.299),
        ("$1.299", 1.299),
        ("0.299 EUR", 0.299),
        ("12.99 EUR", 12.99),
        ("1,299 EUR", 1299.0),
        ("1299.000 EUR", 1299.0),
        ("\u00a51200", 1200.0),
        ("9" * 400, None),
        (".a-box-inner{background-color:#fff}#x{width:100px}", None),
        ("\n\n<script", None),
        ("-4", None),
        (0, None),
        (-4.0, None),
        (float("nan"), None),
        (None, None),
        (True, None),
    ],
)
def test_prices(raw, price):
    assert clean_price(raw) == price


@pytest.mark.parametrize(
    ("raw", "brand"),
    [
        ("by\n    \n    Foo &amp; Bar", "Foo & Bar"),
        ("Visit Amazon's Fender Page", "Fender"),
        ("Visit the Sony Store", "Sony"),
        ("The Container Store", "The Container Store"),
        ("Bygone Guitars", "Bygone Guitars"),
        ("By Terry", "By Terry"),
        ("by Terry", "by Terry"),
        ("By Far", "By Far"),
        ("The Body Store", "The Body Store"),
        ("Visit Britain Store", "Visit Britain Store"),
        ("Unknown", None),
        ("&", None),
        ("", None),
        (None, None),
    ],
)
def test_brands(raw, brand):
    assert clean_brand(raw) == brand


def test_categories_are_flattened_outermost_first_each_once():
    nested = [["Music", "Guitars &amp; Strings"], ["Music", "Picks"], [None, "<b></b>", ">"]]
    assert clean_categories(nested) == ["Music", "Guitars & Strings", "Picks"]
    assert clean_categories(["A", "B", "A"]) == ["A", "B"]
    assert clean_categories(None) == []
    deep: list = ["in the middle"]
    for _ in range(5000):
        deep = [deep]
    assert clean_categories(deep) == ["in the middle"]


def test_descriptions_join_paragraphs_once_and_drop_page_code():
    assert clean_description(["<p>One.</p>", "", "One.", "var aPageStart = 1", "Two."]) == "One. Two."
    assert clean_description("Just text") == "Just text"
    assert clean_description([]) is None


def test_item_text_names_every_field_that_is_there():
    full = {
        "title": "Warm Ukulele", "brand": "Tern", "categories": ["Music", "Ukuleles"], "price": 49.9,
        "description": "A small ukulele with nylon strings",
    }  # fmt: skip
    text = item_text(item_id="i", **full, description_words=3)
    assert text == "Warm Ukulele. Brand: Tern. Categories: Music > Ukuleles. Price: 49.90. A small ukulele."
    nothing = {"title": None, "brand": None, "categories": [], "price": None, "description": None}
    assert item_text(item_id="B07", **nothing, description_words=3) == "item B07"
    assert item_text(item_id="i", **{**nothing, "title": "Who?"}, description_words=3) == "Who?"


def test_no_field_of_one_item_shows_in_the_next():
    rich = clean_item("1", "First", "BrandOne", [["CatOne"]], "$5", ["Words of one"], description_words=9)
    poor = clean_item("2", None, None, None, None, None, description_words=9)
    again = clean_item("1", "First", "BrandOne", [["CatOne"]], "$5", ["Words of one"], description_words=9)
    assert rich == again
    assert poor == {
        "title": None, "brand": None, "categories": [], "price": None, "description": None, "text": "item 2",
    }  # fmt: skip


def test_nothing_printable_but_the_space_counts_as_white_space() -> None:
    marks = [chr(one) for one in range(sys.maxunicode + 1) if markup._SPACE.match(chr(one))]
    assert [one for one in marks if one.isprintable()] == [" "]
    assert clean_text(" Ein\u00a0Lied  für dich ") == "Ein Lied für dich"
    assert clean_text(" Ein Lied für dich ") == "Ein Lied für dich"
