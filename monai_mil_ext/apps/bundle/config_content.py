"""Content of the config that is being evaluated, for an expression that can do without it."""

from __future__ import annotations

import inspect
from typing import Any

from monai.bundle import ConfigParser

from monai_mil_ext.utils.exceptions import describe_error, root_cause

__all__ = ["content_or_reason"]


def content_or_reason(name: str) -> Any:
    """Return a component of the config that is being evaluated, or, if a part of it is not at hand, the reason as text.

    MONAI builds whatever an expression refers to before it evaluates the expression, and so fails for a part that the
    expression could do without, such as an encoder whose weights are elsewhere. A name that is no reference is built
    here.

    Args:
        name: id of the component.

    Raises:
        ValueError: when it is called outside of a config.

    Example:
        >>> content = "$monai_mil_ext.apps.bundle.content_or_reason('encoder')"
        >>> encoder = {"_target_": "torch.load", "f": "lost.pt"}
        >>> parser = ConfigParser({"imports": ["$import monai_mil_ext"], "encoder": encoder, "content": content})
        >>> parser.get_parsed_content("imports"), parser.get_parsed_content("content")
        ([...], 'No such file or directory')
    """
    frame = inspect.currentframe()
    while frame is not None and not isinstance(frame.f_locals.get("self"), ConfigParser):
        frame = frame.f_back
    if frame is None:
        raise ValueError(f"`name` must be an id of the config that calls, got {name!r} outside of a config.")
    try:
        return frame.f_locals["self"].get_parsed_content(name)
    except Exception as error:
        cause = root_cause(error)
        if isinstance(cause, (OSError, ValueError, ImportError)):
            return describe_error(cause)
        raise
