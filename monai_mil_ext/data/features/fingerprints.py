"""Fingerprint of a configuration of transforms and networks, the same in every process."""

from __future__ import annotations

import copy
import enum
import functools
import hashlib
import logging
import os
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Set
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from monai_mil_ext.utils.remote import isfile, local_copy

__all__ = ["fingerprint", "model_fingerprint"]

# state and device of a computation, which do not change its result
IGNORED = (np.random.RandomState, np.random.Generator, torch.Generator, torch.device, logging.Logger)
TRANSFORM_STATE = {"_tracing"}  # attribute that MONAI's invertible transforms get at their first use
MODULE_STATE = set(vars(nn.Module())) - {"_parameters", "_buffers", "_modules"} | {"__overloads__"}  # left by scripting


def fingerprint(*objects: Any) -> str:
    """Compute the SHA-256, in hexadecimal, of everything that determines the results of ``objects``.

    It covers transforms and other objects (qualified name of the class, attributes), networks (class, options,
    parameters, buffers, children), containers, tensors, arrays, numbers, strings, enumerations and functions (qualified
    name; for anonymous and nested functions the code too). It excludes random states, loggers, devices, training
    flags, hooks and memory addresses.

    Raises:
        TypeError: when an object can't be distinguished from others of its class, such as an open file.

    Example:
        >>> fingerprint({"a": 1, "b": [2.0]}) == fingerprint({"b": [2.0], "a": 1})
        True
        >>> fingerprint(1) == fingerprint(True)
        False
    """
    return _digest(objects, {}).hex()


def model_fingerprint(network: nn.Module, path: str | os.PathLike[str]) -> str:
    """Compute the fingerprint of a network with the weights of a file, before they are loaded.

    It covers class, options and structure of ``network`` and the content of the file, but not the random weights with
    which the network was made.

    Args:
        network: network of the weights.
        path: file of the weights.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it can't be read safely.

    Example:
        >>> torch.save(nn.Linear(2, 1).state_dict(), "model.pt")
        >>> model_fingerprint(nn.Linear(2, 1), "model.pt") == model_fingerprint(nn.Linear(2, 1), "model.pt")
        True
    """
    blank = copy.deepcopy(network).cpu()
    with torch.no_grad():
        for tensor in (*blank.parameters(), *blank.buffers()):
            tensor.zero_()
    if not isfile(path):
        raise FileNotFoundError(f"`path` must be a file of weights that exists, got {os.path.basename(path)!r}.")
    # not its tensors, which may lie in the containers of several frameworks
    with local_copy(path) as source, source.open("rb") as file:
        return fingerprint(blank, hashlib.file_digest(file, "sha256").digest())


def _digest(value: Any, seen: dict[int, int]) -> bytes:
    """Return the digest of ``value``; ``seen`` numbers its parent objects, so that cycles terminate."""
    name = _name(type(value))
    for kind, describe in _SIMPLE:
        if isinstance(value, kind):
            return _join(name, describe(value))
    if id(value) in seen:
        return _join("seen", seen[id(value)])
    seen = {**seen, id(value): len(seen)}
    parts = next(parts for kind, parts in _COMPOSED if isinstance(value, kind))
    digests = [_digest(part, seen) for part in parts(value)]
    return _join(name, *(sorted(digests) if isinstance(value, (Mapping, Set)) else digests))


def _join(*parts: bytes | str | int) -> bytes:
    """Return the digest of parts, each preceded by its length, so that ("ab", "c") differs from ("a", "bc")."""
    total = hashlib.sha256()
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode()
        total.update(struct.pack("<q", len(raw)))
        total.update(raw)
    return total.digest()


def _name(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _attributes(value: Any) -> dict[str, Any]:
    if isinstance(value, nn.Module):
        return {k: v for k, v in vars(value).items() if k not in MODULE_STATE}
    if not hasattr(value, "__dict__"):
        raise TypeError(f"`objects` must have attributes that distinguish them, got {_name(type(value))}.")
    return {k: v for k, v in vars(value).items() if k not in TRANSFORM_STATE}


def _array(value: np.ndarray[Any, Any]) -> bytes:
    if value.dtype.hasobject:
        return _join("objects", str(value.shape), *(_digest(v, {}) for v in value.ravel().tolist()))
    return _join(value.dtype.str, str(value.shape), np.ascontiguousarray(value).tobytes())


def _tensor(value: Tensor) -> bytes:
    raw = value.detach().cpu().contiguous().reshape(-1)
    plain = raw.as_subclass(Tensor).view(torch.uint8).numpy().tobytes() if raw.numel() else b""
    return _join(str(value.dtype), str(tuple(value.shape)), plain)


def _function(value: FunctionType) -> list[Any]:
    if "<" not in value.__qualname__:
        return [_name(value)]
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    return [value.__module__, value.__code__, value.__defaults__, value.__kwdefaults__, cells]


def _code(value: CodeType) -> list[Any]:
    return [value.co_code, value.co_names, value.co_varnames[: value.co_argcount], value.co_consts]


_SIMPLE: list[tuple[Any, Callable[[Any], bytes | str]]] = [
    (IGNORED, lambda v: ""),
    (enum.Enum, lambda v: v.name),
    ((type(None), bool, int, float, complex, str), repr),
    (bytes, bytes),
    (type, _name),
    (np.ndarray, _array),
    (np.generic, lambda v: _array(np.asarray(v))),
    (Tensor, _tensor),
    ((torch.dtype, np.dtype, range, slice), str),
    (os.PathLike, os.fspath),
    (re.Pattern, lambda v: repr((v.pattern, v.flags))),
    (BuiltinFunctionType, lambda v: f"{v.__module__}.{v.__qualname__}"),
]
_COMPOSED: list[tuple[Any, Callable[[Any], Iterable[Any]]]] = [
    ((tuple, list, Set), lambda v: v),
    (Mapping, lambda v: v.items()),
    (functools.partial, lambda v: [v.func, v.args, v.keywords]),
    (MethodType, lambda v: [v.__func__, v.__self__]),
    (FunctionType, _function),
    (CodeType, _code),
    (object, lambda v: [_attributes(v)]),
]
