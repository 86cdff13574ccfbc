"""On which device a client's request is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .refusal import refusal

__all__ = ["device_override"]


def device_override(request: Mapping[str, Any]) -> dict[str, str]:
    """Give the override of a bundle's ``device`` that ``request`` asks for; a GPU that is not there is none.

    Example:
        >>> device_override({"device": "cpu"}), device_override({})
        ({'device': 'cpu'}, {})
    """
    asked = request.get("device")
    asked = asked[0] if isinstance(asked, (list, tuple)) and asked else asked
    if not asked or (str(asked).startswith("cuda") and not torch.cuda.is_available()):
        return {}
    try:
        return {"device": str(torch.device(str(asked)))}
    except RuntimeError:
        raise refusal(f"`device` must be cpu or cuda, got {str(asked)!r}.") from None
