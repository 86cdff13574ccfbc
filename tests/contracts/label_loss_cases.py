"""Losses on logits and bag labels with made labels. A new loss adds one line to ``CASES``."""

import pytest
import torch

from monai_mil_ext.losses import DiscreteSurvivalLoss, MultiLabelLoss, OrdinalLoss, RegressionLoss, SmoothSVMLoss

K = 4  # logits per bag


def some_labels(size):
    y = torch.randint(0, 2, (size, K)).double()
    return y.masked_fill(torch.rand(size, K) < 0.3, torch.nan)


def some_targets(size):
    return torch.randn(size, K, dtype=torch.float64).masked_fill(torch.rand(size, K) < 0.3, torch.nan)


def some_grades(size):
    return torch.randint(0, K + 1, (size,))


def some_classes(size):
    return torch.randint(0, K, (size,))


def some_times(size):
    return torch.stack([torch.randint(0, K, (size,)), torch.randint(0, 2, (size,))], dim=1)


CASES = {
    "multi_label": (MultiLabelLoss, {}, some_labels),
    "multi_label_weighted": (MultiLabelLoss, {"pos_weight": (0.5, 1, 2, 3)}, some_labels),
    "ordinal": (OrdinalLoss, {}, some_grades),
    "regression": (RegressionLoss, {}, some_targets),
    "regression_huber": (RegressionLoss, {"delta": 0.7}, some_targets),
    "smooth_svm": (SmoothSVMLoss, {}, some_classes),
    "survival": (DiscreteSurvivalLoss, {}, some_times),
    "survival_alpha": (DiscreteSurvivalLoss, {"alpha": 0.4}, some_times),
}
every_loss = pytest.mark.parametrize(("loss", "options", "labels"), CASES.values(), ids=CASES)
