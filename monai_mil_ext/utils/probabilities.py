"""Predictions of a bag: probabilities or values, computed from its logits, checked, and reduced to classes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from .checks import check_choice

__all__ = [
    "check_class_names",
    "check_probabilities",
    "class_probabilities",
    "format_prediction",
    "format_times",
    "logits_to_probabilities",
    "predicted_classes",
    "quote_names",
]

EXCLUSIVE = ("classification", "ordinal")
VALUES = ("regression", "cox")  # tasks whose outputs are no probabilities
WITHOUT_CLASSES = ("survival", *VALUES)
TASKS = (*EXCLUSIVE, "multilabel", *WITHOUT_CLASSES)
OUTPUT_NAMES = {"survival": "survival", "regression": "value", "cox": "risk"}  # in results; others: probability
ROUNDING = 1e-6  # by which a probability may leave [0, 1]
SEVERAL = re.compile(r"[,;]|\b(and|or)\b")  # of a name that could be taken for several
SUM_ERROR = 5e-3  # by which a sum may differ from 1: bfloat16 has eight binary digits


def logits_to_probabilities(logits: Tensor, task: str = "classification") -> Tensor:
    r"""Convert logits (..., K) to probabilities (..., C), or to values, at least in float32.

    ==================== ===== ============================================================================
    task                 C     probabilities
    ==================== ===== ============================================================================
    ``"classification"`` K     softmax; a single logit gives :math:`(1 - \sigma(z), \sigma(z))`, so C = 2
    ``"multilabel"``     K     :math:`\sigma(z_c)`, independent of other classes
    ``"ordinal"``        K + 1 :math:`q_{c-1} - q_c` with :math:`q_c = \sigma(\min_{j \le c} z_j)`
    ``"survival"``       K     :math:`\prod_{s \le t} (1 - \sigma(z_s))`, the probability of surviving bin t
    ``"regression"``     K     no probabilities: the values z
    ``"cox"``            K     no probabilities: the risk z, the logarithm of a hazard relative to other bags
    ==================== ===== ============================================================================

    Raises:
        ValueError: if the task is unknown.

    Example:
        >>> logits_to_probabilities(torch.tensor([0.0])), logits_to_probabilities(torch.tensor([0.0]), "multilabel")
        (tensor([0.5000, 0.5000]), tensor([0.5000]))
    """
    check_choice("task", task, TASKS)
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if task in VALUES:
        return z
    if task == "multilabel":
        return z.sigmoid()
    if task == "survival":
        return logsigmoid(-z).cumsum(dim=-1).exp()
    if task == "ordinal":
        return _ordinal(z)
    return torch.softmax(z if z.shape[-1] > 1 else torch.cat([torch.zeros_like(z), z], dim=-1), dim=-1)


def check_class_names(class_names: Sequence[str] | None, num_classes: int) -> None:
    """Raise ``ValueError`` unless there is one name, of its own, for each class, or no names at all.

    Example:
        >>> check_class_names(["benign", "malignant"], 3)
        Traceback (most recent call last):
        ...
        ValueError: `class_names` must be one for each of 3 classes, got ['benign', 'malignant'].
    """
    names = None if class_names is None else [*map(str, class_names)]
    if isinstance(class_names, str) or (names is not None and len(set(names)) < len(names)):
        raise ValueError(f"`class_names` must be a list of different names, got {class_names!r}.")
    if class_names is not None and len(class_names) != num_classes:
        raise ValueError(
            f"`class_names` must be one for each of {num_classes} classes, got {list(map(str, class_names))}."
        )


def check_probabilities(values: Any, task: str = "classification", name: str = "pred") -> None:
    """Raise ``ValueError`` unless ``values`` (..., C) are probabilities of ``task``, or finite values of one without.

    Probabilities must be finite and in [0, 1]. Those of exclusive classes (``"classification"``, ``"ordinal"``) must
    sum to 1, unless there is a single one, and those of surviving time bins (``"survival"``) must not increase.

    Example:
        >>> check_probabilities([-1.5, 1.84])
        Traceback (most recent call last):
        ...
        ValueError: `pred` must be probabilities in [0, 1], got -1.5; BagProbabilitiesd makes them from logits.
    """
    check_choice("task", task, TASKS)
    p = torch.as_tensor(values).detach().double()
    if not p.ndim or not p.numel():
        raise ValueError(f"`{name}` must be probabilities (..., C), got shape {tuple(p.shape)}.")
    if task in VALUES:
        if not p.isfinite().all():
            raise ValueError(f"`{name}` must be finite, got {p[~p.isfinite()][0].item()}.")
        return
    outside = ~((p >= -ROUNDING) & (p <= 1 + ROUNDING))  # NaN is outside, too
    if outside.any():
        got = f"{p[outside][0].item():.4g}; BagProbabilitiesd makes them from logits"
        raise ValueError(f"`{name}` must be probabilities in [0, 1], got {got}.")
    if task in EXCLUSIVE and p.shape[-1] > 1:
        total = p.sum(dim=-1)
        wrong = (total - 1).abs() > SUM_ERROR
        if wrong.any():
            got = f"{total[wrong][0].item():.4g}"
            raise ValueError(f"`{name}` must be probabilities that sum to 1 over the classes, got a sum of {got}.")
    if task == "survival" and (p.diff(dim=-1) > SUM_ERROR).any():
        raise ValueError(f"`{name}` must be probabilities of survival that never increase, got {p.tolist()}.")


def class_probabilities(values: Any, task: str = "classification", name: str = "pred") -> Tensor:
    """Return checked probabilities (..., C), or values, on the CPU, in float64 and with a column for every class.

    A single probability per bag is that of the second of two classes, as a network with one logit predicts it, if
    classes exclude one another.

    Raises:
        ValueError: see :py:func:`check_probabilities`.

    Example:
        >>> class_probabilities([0.75]).tolist()
        [0.25, 0.75]
    """
    check_probabilities(values, task, name)
    p = torch.as_tensor(values).as_subclass(Tensor).detach().cpu().double()
    p = p if task in VALUES else p.clamp(0, 1)
    return torch.cat([1 - p, p], dim=-1) if task in EXCLUSIVE and p.shape[-1] == 1 else p


def predicted_classes(probability: Tensor, task: str = "classification") -> int | list[int] | None:
    """Return the class that the probabilities (C,) of a bag predict.

    This is the first class of the highest probability, for ``"multilabel"`` a list with 1 for every class above 0.5 and
    0 for the others, and ``None`` for ``"survival"``, ``"regression"`` and ``"cox"``.

    Example:
        >>> predicted_classes(torch.tensor([0.1, 0.9])), predicted_classes(torch.tensor([0.9, 0.1]), "multilabel")
        (1, [1, 0])
    """
    if task in WITHOUT_CLASSES:
        return None
    if task == "multilabel":
        return [int(p) for p in probability > 0.5]
    return int(probability.argmax())


def format_times(bin_edges: Sequence[float | None] = (), number: int = 0) -> list[str]:
    """Return the ends of time bins as text, or their numbers if there are not ``number`` ends; ``None`` is infinite.

    Example:
        >>> format_times([12, 24.5, None], 3), format_times([], 2)
        (['12', '24.5', 'inf'], ['0', '1'])
    """
    if len(bin_edges) != number:
        return [str(i) for i in range(number)]
    return [f"{math.inf if edge is None else edge:g}" for edge in bin_edges]


def quote_names(names: Sequence[str]) -> list[str]:
    """Return names for a list in a sentence: in quotes if one of them could be taken for several.

    Example:
        >>> quote_names(["benign", "malignant"]), quote_names(["lung, left", "none"])
        (['benign', 'malignant'], ["'lung, left'", "'none'"])
    """
    several = any(SEVERAL.search(name) for name in names)
    return [repr(str(name)) if several else str(name) for name in names]


def format_prediction(
    values: Any,
    task: str = "classification",
    class_names: Sequence[str] | None = None,
    bin_edges: Sequence[float | None] = (),
) -> str:
    """Return the prediction of a bag as text, for the title of a figure; for two classes, the second one's probability.

    Args:
        values: probabilities or values (C,).
        task: see :py:func:`logits_to_probabilities`.
        class_names: names of the C classes.
        bin_edges: ends of the time bins of ``"survival"``.

    Raises:
        ValueError: see :py:func:`check_probabilities`.

    Example:
        >>> format_prediction([0.4, 0.6]), format_prediction([0.1, 0.7, 0.2])
        ('probability 0.60', 'class 1, probability 0.70')
        >>> format_prediction([0.4, 0.6], class_names=["benign", "malignant"])
        'probability of malignant 0.60'
        >>> format_prediction([0.9, 0.4], "survival", bin_edges=[12, 24]), format_prediction([61.5], "regression")
        ('survival 0.90 at 12, 0.40 at 24', 'value 61.5')
    """
    p = class_probabilities(values, task)
    if task in WITHOUT_CLASSES:
        return _format_values(p, task, bin_edges)
    predicted = predicted_classes(p, task)
    if not isinstance(predicted, int):
        return _format_labels(p.tolist(), class_names)
    shown = 1 if len(p) == 2 else predicted
    if class_names is not None and len(p) == 2:
        return f"probability of {class_names[shown]} {p[shown]:.2f}"
    if class_names is not None:
        return f"{class_names[shown]}, probability {p[shown]:.2f}"
    return f"probability {p[1]:.2f}" if len(p) == 2 else f"class {predicted}, probability {p[predicted]:.2f}"


def _format_labels(values: Sequence[float], names: Sequence[str] | None) -> str:
    """Return the probability of each label, with its name if it has one."""
    texts = [f"{value:.2f}" for value in values]
    if names is not None:
        texts = [f"{name} {text}" for name, text in zip(names, texts, strict=True)]
    kind = "probability" if len(texts) == 1 else "probabilities"
    return f"{kind}{' ' if names is None else ' of '}{', '.join(texts)}"


def _format_values(values: Tensor, task: str, bin_edges: Sequence[float | None]) -> str:
    if task != "survival":
        text = ", ".join(f"{value:.4g}" for value in values.tolist())
        return f"{OUTPUT_NAMES[task]} {text}{' (log hazard, relative)' if task == 'cox' else ''}"
    times = format_times(bin_edges, len(values)) if len(bin_edges) else []
    parts = [f"{value:.2f}{f' at {times[i]}' if times else ''}" for i, value in enumerate(values.tolist())]
    return f"survival {', '.join(parts)}"


def _ordinal(z: Tensor) -> Tensor:
    """Return class probabilities (..., C) of logits (..., C - 1) of "is the class above k?"."""
    z = z.cummin(dim=-1).values
    largest = torch.finfo(z.dtype).max
    z = z.clamp(-largest, largest)
    upper, lower = pad(z, (1, 0), value=largest), pad(z, (0, 1), value=-largest)
    # sigma(a) - sigma(b) as a product, since a difference of two close values loses digits
    return upper.sigmoid() * (-lower).sigmoid() * torch.expm1(lower - upper).abs()
