"""Import of the optional packages that an extra installs."""

from __future__ import annotations

from typing import Any

from monai.utils import optional_import

__all__ = ["optional_dependency"]


def optional_dependency(extra: str, module: str, name: str = "") -> Any:
    """Import a module, or ``name`` from it, of an optional package.

    If the package is not installed, the result is a placeholder that raises an error with the ``pip`` command at its
    first use.

    Args:
        extra: extra that installs the package: ``pip install monai-mil-ext[extra]``.
        module: dotted name of the module.
        name: attribute of the module; empty for the module itself.

    Example:
        >>> optional_dependency("moon", "no_such_package").something
        Traceback (most recent call last):
        ...
        monai.utils.module.OptionalImportError: `import no_such_package` needs: pip install monai-mil-ext[moon] (No ...
    """
    imported, _ = optional_import(module, name=name, descriptor=f"`{{}}` needs: pip install monai-mil-ext[{extra}]")
    return imported
