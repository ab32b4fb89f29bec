import numpy as np
import pytest
import torch
from small_world import CLUSTERS, PER_CLUSTER, small_catalogue

from ray_jobs.evaluation.property_steering import steer_to_properties, summarise_properties
from ray_jobs.evaluation.steering import (
    CONDITIONS,
    GIVEN,
    LATEST,
    NONE,
    PREFERENCE_ONLY,
    RANDOM,
    WITH_HISTORY,
    Answers,
    Past,
    answer,
    evaluation_rows,
    main_metric,
    summarise,
)
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
from ray_jobs.recipes.sequential.settings import PopularitySettings
from ray_jobs.recommenders.base import ScoringRecommender
from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.registry import steering_report
from ray_jobs.registry.steering_plots import axis_figure, property_figure
from schemas.columns import PAD
from schemas.preference_benchmark import AXES, PREFERENCE_BENCHMARK, RECOMMENDATION, SENTIMENT
from schemas.preference_evaluations import PREFERENCE_EVALUATIONS
from schemas.recipes import Need

CATALOGUE = small_catalogue()
PASTS = {
    f"U{user}": Past(
        tuple(CATALOGUE.item_ids[(user + step * 7) % len(CATALOGUE)] for step in range(6)), tuple(range(100, 106))
    )
    for user in range(8)
}


class Listener(ScoringRecommender):
    """Follows the words: items of the cluster that is asked for come first, those of one that is rejected last."""

    name = "listener"
    needs = frozenset({Need.PREFERENCES})

    def __init__(self):
        super().__init__(PopularitySettings(evaluation_batch_size=3), CATALOGUE)
        self.heard = []
        self.register_buffer("one", torch.ones(1))

    def loss(self, batch):
        return {"loss": self.one.sum()}

    def scores(self, batch):
        scores = torch.arange(len(CATALOGUE), 0, -1.0).repeat(len(batch), 1) / 1000
        for row, sentence in enumerate(batch.preferences):
            self.heard.append((sentence, [i for i in batch.history[row].tolist() if i != PAD]))
            for cluster, word in enumerate(CLUSTERS):
                if word in sentence:
                    items = slice(cluster * PER_CLUSTER, (cluster + 1) * PER_CLUSTER)
                    scores[row, items] += -1.0 if sentence.startswith("Avoids") else 1.0
        return scores


def _samples(axis):
    rows = []
    for number in range(8):
        cluster = number % 5 + 1
        rows.append(
            {
                "axis": axis,
                "split": "test",
                "sample_id": f"s{number}",
                "history_user_id": f"U{number}",
                "history_end": 5,
                "target_item_id": f"I{cluster}0",
                "preference": f"Prefers a {CLUSTERS[cluster]}",
                "opposite": f"Avoids a {CLUSTERS[cluster]}" if axis == SENTIMENT else None,
                "latest": None if number == 0 else "Prefers something",
                "random": None if number == 1 else f"Prefers a {CLUSTERS[(cluster + 1) % 6]}",
                "random_opposite": f"Avoids a {CLUSTERS[(cluster + 1) % 6]}" if axis == SENTIMENT else None,
                "partner_item_id": None,
                "similarity": 0.5,
                "seen_in_training": False,
            }
        )
    return rows


def _bundle(model):
    return Bundle(model.eval(), {})


@pytest.fixture(scope="module")
def listened():
    model = Listener()
    samples = [row for axis in AXES for row in _samples(axis)]
    return model, answer(_bundle(model), samples, PASTS)


def test_a_model_that_reads_no_text_has_no_lift_on_any_axis():
    torch.manual_seed(0)
    model = SASRec(SASRecSettings(max_history=6, width=8, layers=1, evaluation_batch_size=5), CATALOGUE)
    results = summarise(answer(_bundle(model), [row for axis in AXES for row in _samples(axis)], PASTS))
    assert [result.axis for result in results] == list(AXES)
    for result in results:
        for lift in result.lift.values():
            assert (lift.difference.mean, lift.difference.low, lift.difference.high, lift.p_value) == (0, 0, 0, 1)
        if result.axis == SENTIMENT:
            assert result.conditions[GIVEN]["m_10"].mean == 0, "a hit that stays a hit for the opposite is none"
            assert result.conditions[WITH_HISTORY]["m_10"].mean == 0


def test_a_model_that_follows_words_is_ahead_of_every_control(listened):
    for result in summarise(listened[1]):
        metric = main_metric(result.axis)
        means = {name: found[metric].mean for name, found in result.conditions.items()}
        assert means[GIVEN] == 1.0
        assert max(means[NONE], means[RANDOM]) < 0.6
        assert result.lift[NONE].difference.low > 0
        assert result.lift[RANDOM].difference.low > 0


def test_each_condition_is_asked_with_the_words_and_the_history_that_it_names():
    model = Listener()
    sample = _samples(RECOMMENDATION)[2]
    history = [CATALOGUE.index[item] for item in PASTS["U2"].items[:5]]
    answer(_bundle(model), [sample], PASTS)
    asked = dict(zip(CONDITIONS[RECOMMENDATION], model.heard, strict=True))
    assert asked == {
        GIVEN: (sample["preference"], history),
        LATEST: ("Prefers something", history),
        RANDOM: (sample["random"], history),
        NONE: ("", history),
        PREFERENCE_ONLY: (sample["preference"], []),
    }
    model.heard.clear()
    sample = _samples(SENTIMENT)[2]
    answer(_bundle(model), [sample], PASTS)
    assert model.heard == [
        (sample["preference"], []),
        (sample["opposite"], []),
        (sample["random"], []),
        (sample["random_opposite"], []),
        ("", []),
        ("", []),
        (sample["preference"], history),
        (sample["opposite"], history),
    ]


def test_a_sample_without_a_control_is_left_out_there_only_and_paired_with_itself(listened):
    found = {a.condition: a for a in listened[1] if a.axis == RECOMMENDATION}
    assert len(found[GIVEN].samples) == 8
    assert [row["sample_id"] for row in found[RANDOM].samples] == [f"s{n}" for n in range(8) if n != 1]
    result = next(r for r in summarise(listened[1]) if r.axis == RECOMMENDATION)
    assert result.lift[RANDOM].users == 7
    assert result.lift[NONE].users == 8


def test_m_counts_a_hit_whose_opposite_misses():
    samples = [{"sample_id": str(n), "target_item_id": "I00"} for n in range(5)]
    lists = np.zeros((5, 10), dtype=np.int64)
    ranks = np.array([1, 6, 3, 0, 11])
    opposite = np.array([0, 11, 5, 0, 1])
    found = Answers(SENTIMENT, "test", GIVEN, samples, ranks, opposite, lists).metrics()
    assert found["m_5"].tolist() == [1, 0, 0, 0, 0]
    assert found["m_10"].tolist() == [1, 1, 0, 0, 0]
    assert found["positive_recall_10"].tolist() == [1, 1, 1, 0, 0]
    assert found["negative_miss_5"].tolist() == [1, 1, 0, 1, 0]


def test_a_target_or_history_that_the_model_does_not_know_is_no_crash_and_no_hit():
    sample = dict(_samples(RECOMMENDATION)[0], target_item_id="newer than the model", history_user_id="X")
    pasts = {"X": Past(("unknown", "I00", "unknown too"), (1, 2, 3))}
    model = Listener()
    found = answer(_bundle(model), [dict(sample, history_end=3)], pasts)
    assert all((a.ranks == 0).all() for a in found)
    assert model.heard[0][1] == [CATALOGUE.index["I00"]]


def test_rows_fit_the_contract_and_are_unique(listened):
    rows = evaluation_rows(listened[1])
    names = {field.name for field in PREFERENCE_EVALUATIONS.arrow_schema()} - {"partition_date", "model"}
    assert set(rows[0]) == names
    keys = {tuple(row[name] for name in PREFERENCE_EVALUATIONS.key) for row in rows}
    assert len(keys) == len(rows) == sum(8 * len(CONDITIONS[axis]) - 1 for axis in AXES)
    assert all((row["m_10"] is None) == (row["axis"] != SENTIMENT) for row in rows)
    assert set(_samples(SENTIMENT)[0]) == set(PREFERENCE_BENCHMARK.column_names()) - {"partition_date"}


PROBES = [
    {
        "probe": word,
        "kind": "category",
        "preference": f"Prefers a {word}",
        "opposite": f"Avoids a {word}",
        "item_ids": [f"I{cluster}{number}" for number in range(PER_CLUSTER)],
    }
    for cluster, word in enumerate(CLUSTERS)
]


def test_success_is_a_share_that_at_least_doubles():
    results = {r.name: r for r in steer_to_properties(_bundle(Listener()), PROBES, PASTS, users=4)}
    tent = results["tent"]
    assert tent.before.tolist() == [0, 0, 0, 0], "without a preference the first two clusters fill the list"
    assert tent.wanted.tolist() == [0.5] * 4
    assert tent.success().all()
    assert not tent.control_success().any()
    guitar = results["guitar"]
    assert guitar.before.tolist() == guitar.wanted.tolist() == [0.5] * 4
    assert not guitar.success().any(), "half of the list before, half after: not doubled"
    assert guitar.rejected.tolist() == [0] * 4
    summary = summarise_properties(list(results.values()))[0]
    assert (summary.success, summary.lists, summary.properties) == (pytest.approx(4 / 6), 24, 6)
    assert summary.rejected == 0


def test_probes_do_not_move_a_model_that_reads_no_text():
    torch.manual_seed(0)
    model = SASRec(SASRecSettings(max_history=6, width=8, layers=1, evaluation_batch_size=5), CATALOGUE)
    for result in steer_to_properties(_bundle(model), PROBES, PASTS, users=4):
        assert np.array_equal(result.before, result.wanted)
        assert np.array_equal(result.before, result.rejected)
        assert not result.success().any()


def test_the_report_has_every_axis_its_examples_and_tags_for_the_registry(listened):
    model, answers = listened
    properties = steer_to_properties(_bundle(model), PROBES, PASTS, users=4)
    report = steering_report.Report(
        model="penchant-<x>/3",
        recipe="listener",
        dataset="x",
        partition="2026-01-31",
        catalogue=CATALOGUE,
        results=summarise(answers),
        answers=answers,
        properties=properties,
        kinds=summarise_properties(properties),
        unknown_targets=2,
    )
    page = steering_report.page(report, PASTS)
    assert page.count("<h2>") == 1 + len(AXES) + 1
    assert "penchant-&lt;x&gt;/3" in page, "names are escaped"
    assert "penchant-<x>/3" not in page
    assert page.count('class="hit"') > len(AXES)
    tags = steering_report.tags(report, "run0")
    assert tags["penchant.steering.sentiment_following"].startswith("m@10 1.000, 0.000 without, 0.000 another's, n 8")
    assert float(tags["penchant.steering.fine_steering.lift"]) > 0.4
    assert tags["penchant.steering.success.category"].startswith("0.667 of lists")
    numbers = steering_report.metric_rows(report)
    assert numbers["test.recommendation.lift_over_none"] > 0.4
    assert numbers["steering.category.success"] == pytest.approx(4 / 6, abs=1e-5)
    for figure in (*(axis_figure(result, "x") for result in report.results), property_figure(properties, "x")):
        figure.canvas.draw()
