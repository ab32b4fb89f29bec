import numpy as np

from ray_jobs.registry.tokenizer_plots import by_depth, collisions, figures, perplexity
from ray_jobs.tokenizers.quality import quality_report

CODES = np.array([[0, 0], [0, 0], [1, 2], [1, 3]], np.int32)
VECTORS = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)


def test_there_is_a_figure_for_what_was_measured_and_none_for_what_was_not():
    always = {"codebook_use", "perplexity", "collisions", "neighbours"}
    assert set(figures(CODES, (4, 4), quality_report(CODES, (4, 4), VECTORS))) == always
    measured = quality_report(CODES, (4, 4), VECTORS, None, [("a",), ("a",), ("b",), ("a",)])
    assert set(figures(CODES, (4, 4), measured)) == always | {"prefix_purity"}


def test_codes_in_use_and_perplexity_stand_beside_the_size_of_a_level():
    axes = perplexity((4, 4), quality_report(CODES, (4, 4), VECTORS)).axes[0]
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers if len(bars) == 2]
    assert heights[0] == [4, 4]
    assert heights[1] == [2, 3]
    np.testing.assert_allclose(heights[2], [2, np.exp(1.5 * np.log(2))])


def test_tuples_are_counted_by_the_items_on_them():
    axes = collisions(CODES).axes[0]
    assert {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in axes.patches} == {1: 2, 2: 1}
    assert axes.get_title() == "50.0% of 4 items share their tuple; the most on one tuple: 2"
    wide = collisions(np.repeat(np.arange(3), [1, 3, 40])[:, None]).axes[0].patches[0].get_data()
    assert wide.values.tolist() == [1, 1, 0, 0, 0, 1]
    assert wide.edges.tolist() == [1, 2, 4, 8, 16, 32, 64]


def test_a_curve_has_chance_beside_it():
    axes = by_depth([0.5, 0.25], [0.1, 0.0], "neighbours", "any").axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0.5, 0.25], [0.1, 0.0]]
    assert "by chance: any" in [text.get_text() for text in axes.get_legend().get_texts()]
