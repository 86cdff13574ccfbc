"""Settings of the experiments on the papers' claims: the variants of each network, from ``protocol.json``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import load_json

__all__ = ["ANCHOR", "ASMIL_PARTS", "QGMIL_PARTS", "cell", "read_settings", "variants"]

FILE = Path(__file__).with_name("protocol.json")
QGMIL_PARTS = ("gate", "QK norm", "RMS norm", "SwiGLU")
ASMIL_PARTS = ("anchor", "NSF", "token drop")
ANCHOR = " + anchor"
BLOCK = "monai_mil_ext.networks.nets.QGMILBlock"


@cache
def read_settings() -> dict[str, Any]:
    """Read ``protocol.json``."""
    return dict(load_json(FILE))


def cell(network: str, parts: Mapping[str, bool]) -> str:
    """Return the name of a network with some of its parts.

    Example:
        >>> cell("ASMIL", {"anchor": True, "NSF": False, "token drop": True}), cell("QG-MIL", {"gate": False})
        ('ASMIL with anchor, token drop', 'QG-MIL with no part')
    """
    return f"{network} with {', '.join(name for name, on in parts.items() if on) or 'no part'}"


def variants() -> dict[str, dict[str, Any]]:
    """Return all variants by name, those that take long last.

    A variant that is a ``method`` of the benchmark is not trained again. Others have the ``network``, ``settings`` of
    the study, and ``anchor``: ``target`` and ``momentum`` of the term on the attention.

    - ASMIL: every combination of its three parts. Without NSF, the target is the softmax of the anchor. Without the
      anchor but with NSF, it is that of the present network in evaluation mode (momentum 0). Without either, there is
      no term. All are trained, as those of the benchmark did not note how the attention changes.
    - QG-MIL: every combination of its four parts. Without RMS norm it has layer norm, without SwiGLU a plain network of
      two layers with SiLU and the same width.
    - Plug-in: networks with and without the anchor and NSF.
    - Normal Guidance: ABMIL with it, and the center of the scan.
    - Further networks, as the study trains them by name.
    """
    found: dict[str, dict[str, Any]] = {name: {"method": name} for name in ("center", "ABMIL", "ABMIL + NG")}
    found |= {"ABMIL + anchor": {"method": "ABMIL + anchor"}, "TransMIL": {"method": "TransMIL"}}
    for asmil in product((True, False), repeat=3):
        found[cell("ASMIL", dict(zip(ASMIL_PARTS, asmil, strict=True)))] = _asmil(*asmil)
    for qgmil in product((True, False), repeat=4):
        spec = {"method": "QG-MIL"} if all(qgmil) else _qgmil(*qgmil)
        found[cell("QG-MIL", dict(zip(QGMIL_PARTS, qgmil, strict=True)))] = spec
    found |= {"ACMIL": {"network": "ACMIL"}} | {name + ANCHOR: _anchored(name) for name in ("ACMIL", "TransMIL")}
    return found | {name: {"network": name} for name in read_settings()["networks"]}


def _qgmil(gate: bool, qk_norm: bool, rms: bool, swiglu: bool) -> dict[str, Any]:
    block = {
        "_target_": BLOCK,
        "gate": "headwise" if gate else "none",
        "qk_norm": qk_norm,
        "norm": "rms" if rms else "layer",
        "ffn": "swiglu" if swiglu else "mlp",
    }
    return {"network": "QGMIL", "settings": {"block": block}}


def _asmil(anchor: bool, nsf: bool, drop: bool) -> dict[str, Any]:
    values = read_settings()
    settings = {"token_drop": 0.5 if drop else 0.0, "anchor": values["beta"] if anchor or nsf else 0.0}
    return {"network": "ASMIL", "settings": settings, "anchor": _term(nsf, values["momentum"] if anchor else 0.0)}


def _anchored(name: str) -> dict[str, Any]:
    values = read_settings()
    settings = {"anchor": values["plugin_beta"]}
    return {"network": name, "settings": settings, "anchor": _term(True, values["momentum"])}


def _term(nsf: bool, momentum: float) -> dict[str, Any]:
    return {"target": "sigmoid" if nsf else "softmax", "momentum": momentum}
