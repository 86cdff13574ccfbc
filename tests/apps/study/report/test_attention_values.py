"""Means of the attention's columns, and localization beside the center prior."""

import numpy as np
import pytest

from monai_mil_ext.apps.study.report.attention_values import attention_stability, attention_summary
from monai_mil_ext.apps.study.report.case_sample import CaseSample

from .made import table, two


def summarize(**more):
    columns = {name: np.array(values, float) for name, values in more.items()}
    return attention_summary(CaseSample.draw(table([0, 1, 0, 1], two(np.zeros(4)), more=columns), 500, 0))


def test_localization_is_compared_in_the_cases_that_have_labels():
    attention, localization = summarize(
        entropy_ratio=[0.2, 0.4, 0.6, 0.8],
        instance_auroc=[0.9, 0.7, np.nan, np.nan],
        center_auroc=[0.6, 0.6, 0.1, np.nan],
    )
    assert list(attention) == ["entropy_ratio"]
    assert attention["entropy_ratio"]["value"] == pytest.approx(0.5)
    assert 0 < attention["entropy_ratio"]["low"] < 0.5 < attention["entropy_ratio"]["high"] < 1
    assert localization["instance_auroc"]["value"] == pytest.approx(0.8)
    assert localization["difference"]["value"] == pytest.approx(0.2)
    assert localization["num_cases"] == 2


def test_without_columns_there_is_nothing():
    assert summarize() == (None, None)
    assert summarize(instance_auroc=[np.nan] * 4) == (None, None)
    assert summarize(stability=[-1, 2, 3, 4])[0]["stability"]["value"] == 2


def test_stability_is_the_mean_over_validation_cases_with_an_interval_by_patient():
    rows = table([0, 1, 0, 1], two(np.zeros(4)), part="val", more={"stability": np.array([0.1, 0.2, 0.3, np.nan])})
    found = attention_stability(CaseSample.draw(rows, 500, 0, "val"))["stability"]
    assert found["value"] == pytest.approx(0.2)
    assert 0 < found["low"] < 0.2 < found["high"]


@pytest.mark.parametrize("more", [{}, {"stability": np.full(4, np.nan)}])
def test_without_a_recorded_training_there_is_no_stability(more):
    rows = table([0, 1, 0, 1], two(np.zeros(4)), part="val", more=more)
    assert attention_stability(CaseSample.draw(rows, 50, 0, "val")) == {}


def test_attention_that_never_changes_has_stability_zero():
    rows = table([0, 1, 0, 1], two(np.zeros(4)), part="val", more={"stability": np.zeros(4)})
    found = attention_stability(CaseSample.draw(rows, 50, 0, "val"))["stability"]
    assert found["value"] == 0
