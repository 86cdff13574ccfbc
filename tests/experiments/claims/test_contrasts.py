"""Tests of paired differences."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score


@pytest.fixture
def contrasts():
    from experiments.claims import contrasts

    return contrasts


def draw_rows(seed, shift=0.0, num=40):
    rng = np.random.default_rng(seed)
    label = np.arange(num) % 2
    probability = (0.3 * label + 0.1 * rng.integers(0, 6, num) + shift).clip(0, 1)
    auroc = np.where(label > 0, rng.random(num) + shift, np.nan)
    return [
        {"label": int(a), "probability": float(b), "instance_auroc": float(c), "attention_jsd": 0.1 * seed}
        for a, b, c in zip(label, probability, auroc, strict=True)
    ]


def test_each_measure_of_all_scans_is_that_of_another_library(contrasts):
    rows = {1: draw_rows(1), 2: draw_rows(2)}
    draws = contrasts.Draws({1: 40, 2: 40}, 0)
    columns = {s: [np.array([row[k] for row in r]) for k in ("label", "probability")] for s, r in rows.items()}
    expected = {
        "bag_macro_f1": [f1_score(y, p > 0.5, average="macro") for y, p in columns.values()],
        "bag_auroc": [roc_auc_score(y, p) for y, p in columns.values()],
        "instance_auroc": [np.nanmean([row["instance_auroc"] for row in r]) for r in rows.values()],
        "attention_jsd": [0.1, 0.2],
    }
    for metric, of_seeds in expected.items():
        found = contrasts.contrast([rows], [rows], metric, draws)
        assert found["plus"] == pytest.approx(np.mean(of_seeds)), metric
        assert (found["difference"], found["interval"], found["seeds"]) == (0, None, [0, 0])
    spread = contrasts.contrast([rows], [rows], "sd_macro_f1", draws)["plus"]
    assert spread == pytest.approx(np.std(expected["bag_macro_f1"], ddof=1))


def test_draws_are_paired_and_the_interval_contains_the_difference(contrasts):
    rows = {seed: draw_rows(seed) for seed in (1, 2, 3)}
    better = {seed: draw_rows(seed, shift=0.25) for seed in rows}
    draws = contrasts.Draws(dict.fromkeys(rows, 40), 500)
    found = contrasts.contrast([better], [rows], "instance_auroc", draws)
    assert found["interval"] == pytest.approx([0.25, 0.25])  # each scan gains the same
    other = {seed: draw_rows(seed + 10) for seed in rows}
    found = contrasts.contrast([rows, better], [other], "bag_macro_f1", draws)
    low, high = found["interval"]
    assert low < found["difference"] < high
    assert found["difference"] == pytest.approx(np.mean(found["seeds"]))


def test_seeds_are_drawn_too(contrasts):
    """With scans that are all alike, only the seeds vary."""
    rows, other = ({s: [{"label": 1, "instance_auroc": v * s}] * 20 for s in (1, 2, 3)} for v in (0.2, 0.1))
    found = contrasts.contrast([rows], [other], "instance_auroc", contrasts.Draws(dict.fromkeys(rows, 20), 1000))
    assert found["interval"] == pytest.approx([0.1, 0.3], abs=0.035)
    assert found["difference"] == pytest.approx(0.2)
