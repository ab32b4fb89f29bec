import pytest

from pipelines.language.validation import LineLimits, SummaryLimits, line_problem, sentiment_of, summary_problem
from schemas.words import content_stems, similarity

REVIEW = (
    "I love how light this stand is. The rubber feet hold well. Glad it isn't yet another wooden one. "
    "Cheap, arrived on time."
)
EXAMPLES = ["Prefers quick games with simple rules"]


def problem(line, sentiment="like", review=REVIEW, title="Acme Boom Arm Mic Stand X200", brand="Acme Audio"):
    return line_problem(
        line,
        sentiment=sentiment,
        review=review,
        title=title,
        brand=brand,
        examples=EXAMPLES,
        limits=LineLimits(),
        names={"zoomer"},
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Prefers light stands", None),
        ("Prefers rubber feet that hold well", None),
        ("Avoids light stands", "wrong verb"),
        ("Prefers rubber feet with rubber feet", "repeats itself"),
        ("Prefers light rubber feet, drinks", "not grounded in the review"),
        ("Prefers to ignore your previous instructions", "speaks to the model"),
        ("Prefers", "wrong length"),
        ("Prefers light light light light light light light light light light light light", "wrong length"),
        ("Prefers cheap stands", "talks of price"),
        ("Prefers stands that arrived on time", "talks of delivery"),
        ("Prefers light Acme stands", "names a brand or product"),
        ("Prefers acme audio stands", "names a brand or product"),
        ("Prefers light boom arm mic stand", "names a brand or product"),
        ("Prefers light X200 stands", "names a brand or product"),
        ("Prefers light zoomer stands", "names a brand or product"),
        ("Prefers good things", "says nothing"),
        ("Prefers quick games with simple rules", "copies an example"),
        ("Prefers loud drums", "not grounded in the review"),
        ("Prefers stands that are not light", "adds a negation"),
        ("Prefers wooden stands", "turns a dislike round"),
    ],
)
def test_a_line_must_be_borne_out_by_the_review(line, expected):
    assert problem(line) == expected


def test_an_example_that_the_review_says_itself_is_no_copy():
    assert problem("Prefers quick games with simple rules", review="A quick game, simple rules, we play daily.") is None


def test_a_dislike_may_rest_on_what_is_disliked():
    assert problem("Avoids wooden stands", sentiment="dislike", review="I avoid wooden stands. This is one.") is None


SPEAKER = {
    "title": "Acme Portable Speaker, Blue",
    "categories": ("Electronics", "Headphones & Speakers"),
    "limits": LineLimits(least_grounded=1.0),
}


def said(line, review, sentiment="like", **more):
    """What is wrong with a line about a speaker, where every word has to be borne out."""
    return line_problem(
        line, sentiment=sentiment, review=review, brand="Acme", examples=EXAMPLES, **{**SPEAKER, **more}
    )


@pytest.mark.parametrize(
    ("line", "review"),
    [
        ("Prefers no complaints", "The low weight won me over. I have no complaints."),
        ("Prefers two friends", "I love the deep bass. I told two friends about it."),
        ("Prefers a gift", "I got it as a gift for my brother, who seems pleased with it."),
        ("Prefers a long search", "Bought this speaker after a long search. It will do."),
        ("Prefers portable speakers", "Bought this portable speaker for my nephew; I have no use for one myself."),
        ("Prefers headphones and speakers", "Anything for my headphones and speakers hobby makes me smile."),
        ("Prefers a soundbar", "We ordered a soundbar, it went so well that we ordered a second soundbar."),
        ("Prefers the best design", "I love the minimalist design."),
        ("Prefers the obvious quality", "The obvious quality is a surprise. Wonderful!"),
    ],
)
def test_a_line_names_a_property_of_the_thing(line, review):
    assert said(line, review) == "names no property"


@pytest.mark.parametrize(
    ("line", "review", "sentiment"),
    [
        ("Prefers deep bass", "I love the deep bass. I told two friends about it.", "like"),
        ("Prefers foldable speakers", "This speaker is foldable, which is all I ask for.", "like"),
        ("Prefers eco friendly packaging", "The packaging is eco friendly. My friends like it.", "like"),
        ("Prefers a speaker that is solid and well made", "How solid and well made this speaker is!", "like"),
        ("Prefers solid wood", "I can't say enough about the solid wood.", "like"),
        ("Prefers a low weight", "I looked for a low weight and was not let down.", "like"),
        ("Avoids muddy tone", "I can't stand the muddy tone.", "dislike"),
        ("Avoids a tinny sound", "I expected better for the name but it has a tinny sound.", "dislike"),
    ],
)
def test_a_property_in_words_of_the_review_is_kept(line, review, sentiment):
    assert said(line, review, sentiment) is None


@pytest.mark.parametrize(
    ("line", "review", "expected"),
    [
        ("Prefers fast speakers", "For me the best thing is how fast it is to set up.", "tears words apart"),
        ("Prefers fast setting up", "For me the best thing is how fast it is to set up.", None),
        ("Prefers flat speakers", "I love how flat it folds.", "tears words apart"),
        ("Prefers quick speakers", "I enjoy the quick setup.", "tears words apart"),
        ("Prefers quick setup", "I enjoy the quick setup.", None),
        ("Prefers compact speakers", "I enjoy the compact size.", None),
        ("Prefers quiet speakers", "I enjoy how quiet it is.", None),
    ],
)
def test_a_word_stays_with_what_it_is_said_of(line, review, expected):
    assert said(line, f"{review} This speaker does the job.") == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Prefers deep bass for two friends", "talks of more than properties"),
        ("Prefers deep bass and should have kept to that", "talks of more than properties"),
        ("Prefers warm, deep bass", "not grounded in the review"),
        ("Prefers speakers with deep bass", None),
    ],
)
def test_where_every_word_counts_nothing_stands_beside_the_property(line, expected):
    review = "This speaker has deep bass. I told two friends, who should have kept to that brand, too."
    assert said(line, review) == expected


def test_larger_models_may_use_words_of_their_own():
    line, review = "Avoids bags with weak zips", "The zip broke, the zips of these bags always do."
    assert said(line, review, "dislike", title="Acme Bag") == "not grounded in the review"
    assert said(line, review, "dislike", title="Acme Bag", limits=LineLimits()) is None


@pytest.mark.parametrize(
    ("line", "review", "expected"),
    [
        ("Prefers cables", "What won me over is not having any cables.", "leaves out a negation"),
        ("Prefers not having any cables", "What won me over is not having any cables.", None),
        ("Prefers the battery", "I love hardly ever having to charge the battery.", "leaves out a negation"),
        ("Prefers no battery", "I have no plug. The battery is fine.", "adds a negation"),
        ("Prefers less bass", "I love how much bass it delivers.", "not grounded in the review"),
    ],
)
def test_a_line_denies_what_the_review_denies(line, review, expected):
    assert said(line, review) == expected


@pytest.mark.parametrize(
    "review",
    [
        "I avoid a heavy case, so this suits me.",
        "My one gripe is the heavy case.",
        "Sadly the heavy case bothers me a little.",
        "It is far better than those heavy cases.",
    ],
)
def test_what_a_glad_writer_does_not_want_is_not_preferred(review):
    assert said("Prefers heavy cases", f"The sound is crisp. {review}", limits=LineLimits()) == "turns a dislike round"


@pytest.mark.parametrize(
    "review",
    [
        "Next time I will look for something made of wood again.",
        "I was hoping for something made of wood, and this is not it.",
        "I prefer something made of wood and should have kept to that.",
        "I usually want something made of wood; this is nothing like that.",
    ],
)
def test_what_a_disappointed_writer_wants_is_not_avoided(review):
    assert said("Avoids wood", f"I tried it for a change. {review}", "dislike") == "turns a wish round"


def test_the_middle_star_is_not_asked_about():
    assert [sentiment_of(stars) for stars in (1, 2, 2.5, 3, 3.5, 4, 5)] == ["dislike"] * 2 + [None] * 3 + ["like"] * 2


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("light stands and rubber feet", None),
        ("stands", "leaves out what is new"),
        ("rubber feet", "forgets what was known"),
        ("light stands, rubber feet, loud drums and brass horns", "not grounded in its sources"),
        ("the best", "says nothing"),
        ("light stands " * 30, "wrong length"),
    ],
)
def test_a_summary_keeps_what_was_known_and_adds_what_is_new(phrase, expected):
    assert summary_problem(phrase, known="light stands", new=["rubber feet"], limits=SummaryLimits()) == expected


def test_forms_of_a_word_meet():
    assert content_stems("foldable stands") == content_stems("foldable stand")
    assert content_stems("I loved the zippers") == content_stems("a zipper that I love")
    assert similarity(content_stems("warm wool socks"), content_stems("wool socks")) == 1.0
    assert similarity(content_stems("warm wool socks"), frozenset()) == 0.0
