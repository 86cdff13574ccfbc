"""Methods of the protocol and their candidate settings."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

__all__ = ["GRIDS", "METHODS", "SEEDS", "Method", "settings"]

NETS = "monai_mil_ext.networks.nets."
SEEDS = (1001, 2001, 3001)
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "published": {
        "learning_rate": (0.1, 0.01, 0.001, 0.0001),
        "l1": (1, 0.1, 0.01, 0.001, 1e-4, 1e-5, 1e-6, 0),
    },
    "modern": {"learning_rate": (1e-3, 3e-4, 1e-4)},
}


class Method(NamedTuple):
    """Method of the protocol, a row of the table.

    Attributes:
        overrides: overrides of the config.
        configs: overlays on top of the training protocol.
        uses_slice_labels: whether slice labels are used; marked in every table.
        fixed: keys of the grid that are not searched.
    """

    overrides: dict[str, Any]
    configs: tuple[str, ...] = ()
    uses_slice_labels: bool = False
    fixed: tuple[str, ...] = ()


def _net(name: str, guidance: float = 0.0, **options: Any) -> Method:
    network = {"_target_": NETS + name, "in_features": "@in_features", "num_classes": 1, **options}
    return Method({"network_def": network, "guidance_weight": guidance})


METHODS: dict[str, Method] = {
    "mean": _net("MeanMIL"),
    "max": _net("MaxMIL"),
    "ABMIL": _net("ABMIL", gated=False),
    "ABMIL + NG": _net("ABMIL", 1.0, gated=False),
    "TransMIL": _net("SequenceTransMIL"),
    "TransMIL + NG": _net("SequenceTransMIL", 1.0),
    "SmAP": _net("SmAP"),
    "SmAP + NG": _net("SmAP", 1.0),
    "SmTP": _net("SmTP"),
    "SmTP + NG": _net("SmTP", 1.0),
    "slice-supervised": Method({}, ("ceiling",), uses_slice_labels=True, fixed=("l1",)),
    "bag-level oracle": Method({}, ("oracle",), uses_slice_labels=True),
}


def settings(protocol: str, method: str) -> list[dict[str, float]]:
    """Return the candidate settings of a method.

    Example:
        >>> len(settings("published", "ABMIL")), settings("published", "slice-supervised")[0]
        (32, {'learning_rate': 0.1})
    """
    grid = {key: values for key, values in GRIDS[protocol].items() if key not in METHODS[method].fixed}
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
