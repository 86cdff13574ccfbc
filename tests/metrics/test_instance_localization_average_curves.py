"""Curves of instances, averaged over bags."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.metrics import localization, localization_curves

BAG = st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.9]), st.booleans()), min_size=2, max_size=12)
BAGS = st.lists(BAG.filter(lambda bag: len({y for _, y in bag}) == 2), min_size=1, max_size=4)


def tensors(bags):
    return [torch.tensor([s for s, _ in bag]) for bag in bags], [torch.tensor([int(y) for _, y in bag]) for bag in bags]


@given(BAGS)
def test_localization_curves_areas_are_mean_auroc_and_average_precision(bags):
    scores, labels = tensors(bags)
    curves = localization_curves(scores, labels, num_points=4001)
    each = [localization(s, y) for s, y in zip(scores, labels, strict=True)]
    auroc, ap = (np.mean([values[name] for values in each]) for name in ("auroc", "average_precision"))
    assert np.trapezoid(curves.sensitivity, curves.share) == pytest.approx(auroc, abs=2e-3)
    assert curves.precision[1:].mean() == pytest.approx(ap, abs=4e-3)
    assert curves.num_bags == len(bags)


@given(BAGS)
def test_localization_curves_are_fractions_and_sensitivity_increases(bags):
    curves = localization_curves(*tensors(bags))
    for curve in (curves.sensitivity, curves.precision):
        assert ((curve >= 0) & (curve <= 1)).all()
    assert (np.diff(curves.sensitivity) >= -1e-12).all()
    assert curves.sensitivity[-1] == 1
    assert curves.precision[-1] > 0


def test_localization_curves_count_each_bag_once():
    good, bad = torch.tensor([0.9, 0.1]), torch.tensor([1e-6, 2e-6] * 50)
    labels = [torch.tensor([1, 0]), torch.tensor([1, 0] * 50)]
    curves = localization_curves([good, bad], labels, num_points=3)
    assert curves.sensitivity.tolist() == [0.5, 0.5, 1.0]
    assert curves.precision.tolist() == [0.5, 0.75, 0.75]  # the highest score of the long bag is a negative


def test_localization_curves_exclude_bags_with_one_label():
    scores, labels = torch.tensor([0.9, 0.1]), torch.tensor([1, 0])
    assert localization_curves([scores, scores], [labels, torch.tensor([0, 0])]).num_bags == 1
    with pytest.raises(ValueError, match="`labels` must be of both kinds in one bag at least, got none in 1 bags"):
        localization_curves([scores], [torch.tensor([1, 1])])
    with pytest.raises(ValueError, match=r"`labels` must be as many as `scores` \(1\), got 0"):
        localization_curves([scores], [])
