import pytest

from infra.command_line import main
from infra.suggestions import unknown


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def said(capsys):
    def call(*argv):
        try:
            status = main(argv)
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (("settings", "ingset"), "did you mean ingest?"),
        (("recipes", "mendertoc"), "did you mean mendertok?"),
    ],
)
def test_what_does_not_exist_is_refused_in_a_line(home, said, argv, problem):
    status, out, err = said(*argv)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert problem in err


def test_what_there_is_is_listed(home, said):
    assert "sasrec           recommender  sequential" in said("recipes")[1]
    assert "ingest.max_refused_share: number from 0 to 1 (default 0.2)" in said("settings", "ingest")[1]
    both = said("settings", "llm")[1]
    assert "llm.base_url: text" in both
    assert "llm.budget_tokens: " in both
    one = said("recipes", "mendertok")[1]
    assert one.startswith("mendertok, a recommender: ")
    assert "mendertok.epochs: whole number" in one


def test_few_names_are_listed_where_none_is_near():
    assert unknown("stage", "x", ["a", "b"]) == "no stage 'x'; there are a, b"
    assert (
        unknown("stage", "x", map(str, range(99)), "penchant stages") == "no stage 'x' (`penchant stages` lists them)"
    )
