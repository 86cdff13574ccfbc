"""Tests of late fusion."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from monai_mil_ext.apps.study import Task
from monai_mil_ext.apps.study.clinical import LateFusion
from monai_mil_ext.apps.study.clinical.late_fusion import WEIGHTS, choose_weight

from .made_cohorts import BINARY, TASKS, make_bag, make_items

NAMES = [str(i) for i in range(4000)]


def probabilities(logits):
    positive = 1 / (1 + np.exp(-np.asarray(logits, dtype=float)))
    return np.column_stack([1 - positive, positive])


def log_odds(output):
    return np.log(output[:, 1] / output[:, 0])


def two_scores(count, first=1.0, second=1.0, seed=0):
    """Return labels and two independent log-likelihood ratios, whose sum is the best score."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, count)
    signs = 2 * truth - 1
    scores = [2 * a * (signs * a + rng.normal(size=count)) for a in (first, second)]
    return truth, scores


def test_two_equal_sources_are_added_and_their_sum_is_calibrated():
    truth, (a, b) = two_scores(4000)
    fusion = LateFusion.fit(probabilities(a), probabilities(b), truth, NAMES, BINARY)
    assert fusion.weights == [0.5]
    combined = log_odds(fusion(probabilities(a), probabilities(b), BINARY))
    np.testing.assert_allclose(np.polyfit(a + b, combined, 1), [1, 0], atol=0.1)


def test_the_scale_is_that_of_a_logistic_regression():
    truth, (a, _) = two_scores(4000)
    fusion = LateFusion.fit(probabilities(a), probabilities(3 * a), truth, NAMES, BINARY)
    expected = LogisticRegression(C=np.inf).fit(3 * a[:, None], truth)
    assert fusion.blends[0].bag.slope == pytest.approx(expected.coef_[0, 0], rel=0.02)
    shift = fusion.blends[0].bag.shift
    assert shift[1] - shift[0] == pytest.approx(expected.intercept_[0], abs=0.02)


@pytest.mark.parametrize("first", [True, False])
def test_a_large_validation_part_finds_the_source_that_knows_nothing(first):
    truth, (known, _) = two_scores(1000)
    noise = np.random.default_rng(1).normal(0, 2, size=1000)
    pair = [probabilities(s) for s in ((known, noise) if first else (noise, known))]
    fusion = LateFusion.fit(*pair, truth, NAMES[:1000], BINARY)
    assert np.corrcoef(log_odds(fusion(*pair, BINARY)), known)[0, 1] > 0.99
    assert (fusion.shares[0] < 0.1) == first
    assert (fusion.shares[0] > 0.9) != first


def test_the_weight_stays_at_a_half_unless_another_is_better_by_a_standard_error():
    rng, groups = np.random.default_rng(0), np.arange(400)
    common = rng.normal(size=400)
    gains = [common + 0.04 * (i == 4) + 0.5 * rng.normal(size=400) for i in range(5)]
    means = [gain.mean() for gain in gains]
    gains[4] = gains[4] - means[4] + max(means) + 0.1
    assert WEIGHTS[choose_weight(gains, groups)] == 1.0
    assert WEIGHTS[choose_weight([gain[:6] for gain in gains], groups[:6])] == 0.5
    assert WEIGHTS[choose_weight([gain[:1] for gain in gains], groups[:1])] == 0.5


def test_copies_of_a_patient_do_not_make_the_validation_part_larger():
    truth, (a, b) = two_scores(12, 0.2, 0.8, seed=4)
    index = np.repeat(np.arange(12), 40)
    copied = choose_weight(_gains(a, b, truth, index), index)
    assert copied == choose_weight(_gains(a, b, truth, np.arange(12)), np.arange(12))


def test_a_patient_with_many_cases_counts_once():
    truth, (a, b) = two_scores(40, 0.5, 0.8, seed=2)
    index = np.concatenate([np.arange(40), np.zeros(300, dtype=int)])
    patients = np.array(NAMES[:40])
    one, many = (
        LateFusion.fit(probabilities(a[i]), probabilities(b[i]), truth[i], patients[i], BINARY).blends[0]
        for i in (np.arange(40), index)
    )
    assert many.weight == one.weight
    for name in ("clinical", "bag", "both"):
        assert getattr(many, name).slope == pytest.approx(getattr(one, name).slope, rel=1e-3)
        assert getattr(many, name).shift == pytest.approx(getattr(one, name).shift, abs=1e-3)


def _gains(a, b, truth, index):
    signs = 2 * truth - 1
    return [-np.log1p(np.exp(-signs * (w * b + (1 - w) * a)))[index] for w in WEIGHTS]


@pytest.mark.parametrize("kind", TASKS)
def test_json_keeps_the_fusion_of_each_task(kind):
    rng, task = np.random.default_rng(2), TASKS[kind]
    items, score = make_items(rng, 60, kind)
    bag = make_bag(rng, items, ["val"] * 60, task, score)
    clinical = make_bag(rng, items, ["val"] * 60, task, rng.normal(size=60))
    fusion = LateFusion.fit(clinical.output, bag.output, bag.truth, bag.patient, task)
    output = fusion(clinical.output, bag.output, task)
    assert output.shape == bag.output.shape
    assert np.isfinite(output).all()
    read = LateFusion.from_json(json.loads(json.dumps(fusion.to_json())))
    np.testing.assert_array_equal(read(clinical.output, bag.output, task), output)
    assert len(fusion.weights) == (2 if kind == "multilabel" else 1)


def test_a_regression_stays_in_its_unit_and_ignores_that_of_the_bag():
    rng, task = np.random.default_rng(3), Task("regression")
    truth = rng.normal(500, 40, 300)
    clinical, bag = (truth + rng.normal(0, 20, 300))[:, None], (truth / 1000 + rng.normal(0, 0.02, 300))[:, None]
    both = LateFusion.fit(clinical, bag, truth, NAMES[:300], task)(clinical, bag, task)
    assert np.sqrt(np.mean((both[:, 0] - truth) ** 2)) < 16


def test_values_that_hardly_vary_are_not_blown_up_by_a_small_validation_part():
    task = Task("regression")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        score = rng.normal(size=10)
        truth = 500 + 24 * score + 32 * rng.normal(size=10)
        pair = (500 + 24 * score)[:, None], (500 + 0.5 * rng.normal(size=10))[:, None]
        assert LateFusion.fit(*pair, truth, NAMES[:10], task).shares[0] < 0.2


def test_log_hazards_that_hardly_vary_keep_their_share():
    rng = np.random.default_rng(0)
    truth = np.column_stack([rng.uniform(1, 9, 10), np.arange(10) % 2])
    strong, weak = rng.normal(size=(10, 1)), 0.01 * rng.normal(size=(10, 1))
    assert LateFusion.fit(strong, weak, truth, NAMES[:10], Task("cox")).shares[0] < 0.1


@pytest.mark.parametrize("kind", ["binary", "multilabel", "cox"])
def test_a_validation_part_without_contrast_weighs_both_alike(kind):
    rng, task = np.random.default_rng(2), TASKS[kind]
    items, score = make_items(rng, 8, kind)
    bag = make_bag(rng, items, ["val"] * 8, task, score)
    truth = np.where(np.arange(2) == 1, 0, bag.truth) if kind == "cox" else np.zeros_like(bag.truth)
    fusion = LateFusion.fit(bag.output, bag.output, truth, bag.patient, task)
    assert set(fusion.weights) == {0.5}
    assert "of one class or without events" in fusion.notes[0]
    output = fusion(bag.output, bag.output, task)
    assert (np.argsort(output[:, -1]) == np.argsort(bag.output[:, -1])).all()


def test_certain_and_constant_predictions_stay_finite():
    truth = np.arange(20) % 2
    certain, constant = probabilities(np.where(truth, 800, -800)), np.full((20, 2), 0.5)
    fusion = LateFusion.fit(constant, certain, truth, NAMES[:20], BINARY)
    assert np.isfinite(fusion(constant, certain, BINARY)).all()
    risk = np.zeros((20, 1))
    times = np.column_stack([np.arange(1.0, 21), np.ones(20)])
    assert np.isfinite(LateFusion.fit(risk, risk, times, NAMES[:20], Task("cox"))(risk, risk, Task("cox"))).all()


def test_unknown_labels_are_not_used():
    rng, task = np.random.default_rng(2), TASKS["multilabel"]
    items, score = make_items(rng, 40, "multilabel")
    bag = make_bag(rng, items, ["val"] * 40, task, score)
    truth = bag.truth.copy()
    truth[30:, 0] = np.nan
    cut = replace(bag, truth=truth)
    first = LateFusion.fit(cut.output, cut.output[::-1], cut.truth, cut.patient, task).blends[0]
    part = LateFusion.fit(cut.output[:30], cut.output[::-1][:30], truth[:30], cut.patient[:30], task).blends[0]
    assert first == part


@pytest.mark.parametrize("task", [TASKS["regression"], TASKS["cox"], BINARY], ids=lambda task: task.kind)
def test_a_patient_with_many_equal_cases_counts_once(task):
    rng = np.random.default_rng(0)
    truth, (a, b) = two_scores(60)
    if task.kind == "classification":
        pair = [probabilities(a), probabilities(b)]
    else:
        pair = [a[:, None], b[:, None]]
        truth = a + b + rng.normal(size=60) if task.kind == "regression" else np.column_stack([np.exp(-a), truth])
    many = np.r_[np.arange(60), np.zeros(200, dtype=int)]  # further cases of the first patient
    once, often = (
        LateFusion.fit(pair[0][i], pair[1][i], truth[i], [NAMES[j] for j in i], task) for i in (np.arange(60), many)
    )
    blends = once.blends[0], often.blends[0]
    for part in ("clinical", "bag"):
        centers, spreads = zip(*((getattr(b, part).center, getattr(b, part).spread) for b in blends), strict=True)
        assert centers[1] == pytest.approx(centers[0])
        assert spreads[1] == pytest.approx(spreads[0])
    if task.kind == "classification":
        assert often.shares == pytest.approx(once.shares, abs=1e-3)
