import pytest

from infra.errors import SettingError
from pipelines.language.redaction import KINDS, check_kinds, redact
from pipelines.language.review_settings import ReviewLineSettings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to jane.doe+shop@mail.example.org please.", "Write to [email] please."),
        ("Call me at (650) 253-0000 or +44 20 7031 3000!", "Call me at [phone] or [phone]!"),
        ("Sold by Mr. Smith, and Dr Anna Berg agrees.", "Sold by Mr. [name], and Dr [name] agrees."),
        ("My name is Jane and I play drums.", "My name is [name] and I play drums."),
        ("Great strings. - Jane D.", "Great strings. - [name]"),
        ("Would buy again. Thanks, Bob", "Would buy again. Thanks, [name]"),
        # Sizes, prices, model numbers, brands and years are no personal data, and preferences rest on them.
        ("The SM58 from 1966 cost $99.95, gauge 10-46, 120-240 V.", None),
        ("I like my Fender. Ernie Ball strings fit.", None),
        ("Good - Sturdy and loud.", None),
    ],
)
def test_finds_personal_data_and_nothing_else(text, expected):
    assert redact(text, KINDS) == (expected or text)


def test_each_kind_is_optional():
    text = "Mr. Smith, a@b.example, (650) 253-0000"
    assert redact(text, ()) == text
    assert redact(text, ("email",)) == "Mr. Smith, [email], (650) 253-0000"
    with pytest.raises(SettingError, match="redact has passport; use some of email, phone, name"):
        check_kinds(("passport",))


def test_a_review_is_cut_before_personal_data_is_sought_and_none_shows_at_the_cut(monkeypatch):
    read = []
    monkeypatch.setattr(
        "pipelines.language.review_settings.redact", lambda text, *rest: read.append(text) or redact(text, *rest)
    )
    shown = ReviewLineSettings(max_review_words=3).shown
    assert shown("a." * 50_000)
    assert shown("word " * 50_000) == "word word word"
    assert all(len(text) < 1000 for text in read)
    assert shown("Call us at +44 20 7031 3000 or mail") == "Call us at"
    assert shown("Call +44 20 7031 3000 or mail") == "Call [phone] or"
    assert shown(f"{'x' * 500} two{'y' * 400} jane@mail.example.org") == f"{'x' * 500} two{'y' * 400}"
