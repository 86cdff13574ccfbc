"""Description of a constructor call by plain values, from which the same network can be built again."""

import inspect
from dataclasses import fields, is_dataclass
from typing import Any, Dict, Mapping, Optional, Sequence

__all__ = ["describe_call", "describe_object"]

PLAIN = (bool, int, float, str, type(None))


class _NotPlainError(TypeError):
    """Error for an argument that plain values can't describe."""


def describe_call(cls: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
    """Return the arguments of ``cls(*args, **kwargs)`` by name, or ``None`` if one is no plain value.

    Numbers, strings, lists and dictionaries are plain, and so are dataclasses and networks of plain arguments, which
    become dictionaries of ``class`` and ``arguments``.
    """
    try:
        bound = inspect.signature(cls).bind(*args, **kwargs)
        return {name: _describe(value) for name, value in bound.arguments.items()}
    except TypeError:  # also of a call that the constructor itself will refuse, or of pickle and copy, bare
        return None


def describe_object(value: Any) -> Optional[Dict[str, Any]]:
    """Return ``class`` and ``arguments`` of a network or dataclass, or ``None`` if they are not plain values."""
    try:
        return _describe_object(value)
    except _NotPlainError:
        return None


def _describe_object(value: Any) -> Dict[str, Any]:
    arguments = getattr(value, "_constructor_arguments", None)
    if arguments is None and is_dataclass(value) and not isinstance(value, type):
        arguments = {f.name: _describe(getattr(value, f.name)) for f in fields(value) if f.init}
    if arguments is None:
        raise _NotPlainError(type(value).__name__)
    return {"class": type(value).__name__, "arguments": arguments}


def _describe(value: Any) -> Any:
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, (list, tuple)):
        return [_describe(part) for part in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _describe(part) for key, part in value.items()}
    return _describe_object(value)
