from types import SimpleNamespace

from pipelines.language.review_settings import ReviewLineSettings
from pipelines.tools.language_sample import Sample, render


def review(position, stars, text):
    return SimpleNamespace(position=position, stars=stars, review=text, title="Mug")


def test_a_sample_ends_with_how_many_reviews_gave_a_line_and_why_others_did_not():
    reviews = [
        review(0, 5.0, "I love the wide handle."),
        review(1, 3.0, "It holds tea."),
        review(2, 5.0, "I have no complaints."),
        review(3, 4.0, None),
    ]
    sample = Sample(
        reviews={"u": reviews},
        preferences={
            ("u", p): SimpleNamespace(preferences=["Prefers wide handles"], sentiments=["like"], evidence=[[0]])
            for p in range(4)
        },
        refused={"u|2": SimpleNamespace(reason="names no property", raw="Prefers no complaints")},
        summaries={"u": []},
        denoised={},
        titles={},
    )
    told = render(sample, ReviewLineSettings()).splitlines()
    assert told[-2:] == ["Lines of 1 users: 1 of 2 reviews gave one (50%)", "    1  names no property"]
    assert sum("not asked" in line for line in told) == 2
