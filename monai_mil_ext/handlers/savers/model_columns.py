"""Columns of a table for the model that made its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["UNKNOWN", "model_columns", "short_hash"]

UNKNOWN = "unknown"  # what weights without a record were trained on
HASH_DIGITS = 12


def model_columns(model: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return ``model``, ``model_version``, ``model_sha256`` and ``trained_on``, or nothing for ``None``.

    Args:
        model: identity of the model, see :py:meth:`monai_mil_ext.apps.bundle.TrainedModel.identity`.

    Example:
        >>> model_columns({"name": "tumor", "version": "1", "sha256": "ab" * 32, "trained_on": "model.json"})
        {'model': 'tumor', 'model_version': '1', 'model_sha256': 'abababababab', 'trained_on': 'model.json'}
    """
    if model is None:
        return {}
    names = {"model": "name", "model_version": "version"}
    values = {column: model.get(key) or "" for column, key in names.items()}
    return {**values, "model_sha256": short_hash(model.get("sha256")), "trained_on": model.get("trained_on", UNKNOWN)}


def short_hash(sha256: Any) -> str:
    """Return the first digits of the hash of a file of weights, or of several."""
    return " ".join(value[:HASH_DIGITS] for value in ([sha256] if isinstance(sha256, str) else list(sha256 or ())))
