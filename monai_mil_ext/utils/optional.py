"""Import of packages at their first use, so that each part of the library needs only what it uses."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from monai.utils import OptionalImportError

__all__ = ["optional_dependency"]

DISTRIBUTIONS = {"PIL": "pillow", "itk": "itk-io", "sklearn": "scikit-learn"}  # where pip's name is not the module's


def optional_dependency(extra: str, module: str, name: str = "") -> Any:
    """Return a stand-in for a module, or for ``name`` in it, that is imported at the first use.

    A stand-in has the attributes of what it stands for and can be called. It is not a class: to catch an exception or
    to check a type, take the class from the stand-in of its module.

    If the package is not installed, every use raises ``OptionalImportError`` with the ``pip`` command.

    Args:
        extra: extra that installs the package: ``pip install monai-mil-ext[extra]``; empty for what is always needed.
        module: dotted name of the module.
        name: attribute of the module; empty for the module itself.

    Example:
        >>> optional_dependency("", "math").sqrt(4.0)
        2.0
        >>> optional_dependency("moon", "no_such_package").something
        Traceback (most recent call last):
        ...
        monai.utils.module.OptionalImportError: `import no_such_package` needs: pip install monai-mil-ext[moon] (No ...
    """
    return _FirstUse(extra, module, name)


class _FirstUse:
    """Stand-in for a module, or a name in it."""

    def __init__(self, extra: str, module: str, name: str) -> None:
        self._extra, self._module, self._name = extra, module, name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":  # asked by tools that only look at a module's names
            raise AttributeError(name)
        return getattr(self._import(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._import()(*args, **kwargs)

    def _import(self) -> Any:
        statement = f"from {self._module} import {self._name}" if self._name else f"import {self._module}"
        try:
            module = import_module(self._module)
            return getattr(module, self._name) if self._name else module
        except (ModuleNotFoundError, AttributeError) as error:
            text = f"`{statement}` needs: pip install {self._install_name()} ({error})."
        except Exception as error:
            raise OptionalImportError(f"`{statement}` must succeed, got {type(error).__name__}.") from error
        raise OptionalImportError(text)

    def _install_name(self) -> str:
        package = self._module.partition(".")[0]
        return f"monai-mil-ext[{self._extra}]" if self._extra else DISTRIBUTIONS.get(package, package)
