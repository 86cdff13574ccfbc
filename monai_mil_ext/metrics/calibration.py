"""Calibration metrics and temperature scaling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import calibration_binning
from torch import Tensor

from monai_mil_ext.utils import check_positive, check_positive_number

from .bag_classification import class_labels, labels_and_probabilities

__all__ = ["TemperatureScaling", "brier_score", "expected_calibration_error"]


def expected_calibration_error(label: Sequence[int], probability: np.ndarray[Any, Any], num_bins: int = 15) -> float:
    r"""Compute the expected calibration error (ECE) of the predicted class.

    .. math:: \sum_{m=1}^{M} \frac{|B_m|}{B} \big|\mathrm{acc}(B_m) - \mathrm{conf}(B_m)\big|

    where bin m holds the bags whose highest probability is in ((m - 1)/M, m/M], acc is the fraction of them for which
    the class of this probability (the first in case of ties) is the label, and conf is the mean of this probability.
    MONAI's ``CalibrationErrorMetric`` differs: it bins every class separately.

    Args:
        label: labels (B,).
        probability: class probabilities (B, C), or (B, 1) for the second of two classes.
        num_bins: number M of bins.

    Returns:
        The error, from 0 to 1.

    Raises:
        ValueError: see :py:func:`bag_values`, or if ``num_bins`` is not a positive integer.

    References:
        Guo et al., "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599

    Example:
        >>> round(expected_calibration_error([0, 1], np.array([[0.9, 0.1], [0.9, 0.1]])), 4)
        0.4
    """
    check_positive(num_bins=num_bins)
    y, p = labels_and_probabilities(label, probability)
    confidence, correct = torch.from_numpy(p.max(axis=1)), torch.from_numpy(p.argmax(axis=1) == y)
    # bins are (left, right] by default, although MONAI's documentation states the opposite
    predicted, observed, count = calibration_binning(confidence.view(1, 1, -1), correct.view(1, 1, -1), num_bins)
    return float(((predicted - observed).abs() * count).nansum() / len(y))


def brier_score(label: Sequence[int], probability: np.ndarray[Any, Any]) -> float:
    r"""Compute the Brier score, the mean squared error of class probabilities.

    .. math:: \frac1B \sum_b \sum_c (p_{bc} - [y_b = c])^2

    For two classes, both have the same error and only that of the second is counted, as is common. The score ranges
    from 0 to 1 for two classes and to 2 for more.

    Args:
        label: labels (B,).
        probability: class probabilities (B, C), or (B, 1) for the second of two classes.

    Returns:
        The score.

    Raises:
        ValueError: see :py:func:`bag_values`.

    References:
        Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review, 1950

    Example:
        >>> brier_score([0, 1], np.array([[0.5, 0.5], [0.0, 1.0]]))
        0.125
    """
    y, p = labels_and_probabilities(label, probability)
    squared = np.square(p - np.eye(p.shape[1])[y]).sum(axis=1).mean()
    return float(squared / 2 if p.shape[1] == 2 else squared)


class TemperatureScaling:
    r"""Temperature scaling, which divides logits by a temperature T that is fitted on validation data.

    .. math:: T = \operatorname{argmin}_T -\frac1B \sum_b \log \mathrm{softmax}(z_b / T)_{y_b}, \quad 0.01 \le T \le 100

    The likelihood is concave in 1/T, so its derivative changes sign once, which bisection locates. There is no maximum
    if every label has the highest logit (T reaches its lower bound): such data can't determine T. The predicted class
    does not change.

    Args:
        temperature: initial temperature, for example one fitted before.

    Raises:
        ValueError: if the temperature is not positive and finite.

    References:
        Guo et al., "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599

    Example:
        >>> logits, label = torch.tensor([[2.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1])
        >>> scaling = TemperatureScaling().fit(logits, label)
        >>> [round(p, 2) for p in scaling(logits)[0].softmax(-1).tolist()]
        [0.75, 0.25]
    """

    def __init__(self, temperature: float = 1.0) -> None:
        check_positive_number(temperature=temperature)
        self.temperature = float(temperature)

    def fit(self, logits: Tensor, label: Tensor) -> TemperatureScaling:
        """Fit the temperature on validation logits (B, C) and labels (B,).

        Raises:
            ValueError: if logits are not finite with shape (B, C >= 2), or labels are not B classes below C.
        """
        z = logits.detach().double().cpu()
        if z.ndim != 2 or not len(z) or z.shape[1] < 2 or not z.isfinite().all():
            raise ValueError(f"`logits` must be (B, C >= 2) and finite, got shape {tuple(z.shape)}.")
        y = torch.from_numpy(class_labels(label.detach().cpu(), *z.shape))
        label_logit = z.gather(1, y.unsqueeze(1)).squeeze(1)

        def slope(log_t: float) -> float:
            """Return the derivative of the negative log-likelihood by 1/T: expected logit minus label logit."""
            return float(((z / np.exp(log_t)).softmax(dim=1).mul(z).sum(dim=1) - label_logit).mean())

        low, high = np.log(0.01), np.log(100.0)
        flat = bool((z == z[:, :1]).all())  # constant logits fit every temperature
        for _ in range(0 if flat else 60):
            middle = (low + high) / 2
            low, high = (middle, high) if slope(middle) > 0 else (low, middle)
        self.temperature = 1.0 if flat else float(np.exp((low + high) / 2))
        return self

    def __call__(self, logits: Tensor) -> Tensor:
        """Divide logits (..., C) by the temperature."""
        return logits / self.temperature
