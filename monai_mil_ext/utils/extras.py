"""Packages that an extra of this one brings."""

from __future__ import annotations

from typing import Any

from monai.utils import optional_import

__all__ = ["import_extra"]


def import_extra(extra: str, module: str, name: str = "") -> Any:
    """A module, or ``name`` of it; where it is not installed, what raises an error that says how, once it is used.

    Args:
        extra: which brings it: ``pip install monai-mil-ext[extra]``.
        module: dotted name.
        name: of something in it.

    Example:
        >>> import_extra("moon", "no_such_package").something
        Traceback (most recent call last):
        ...
        monai.utils.module.OptionalImportError: `import no_such_package` needs: pip install monai-mil-ext[moon] (No ...
    """
    found, _ = optional_import(module, name=name, descriptor=f"`{{}}` needs: pip install monai-mil-ext[{extra}]")
    return found
