"""Provenance of a result: command, commit, seeds, versions, machine, time."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from monai_mil_ext.utils import optional_dependency
from monai_mil_ext.utils.exceptions import hide_absolute_paths

__all__ = [
    "PACKAGES",
    "check_packages",
    "collect_provenance",
    "command_of_process",
    "describe_machine",
    "package_versions",
    "read_commit",
]

PACKAGES = ("monai-mil-ext", "monai", "torch", "numpy", "scikit-learn")
OF_STUDIES = ("lifelines", "matplotlib", "optuna", "pandas")
NEEDED = (
    optional_dependency("study", "lifelines"),
    optional_dependency("study", "matplotlib"),
    optional_dependency("study", "optuna"),
    optional_dependency("study", "pandas"),
)


def check_packages(tracking: bool = False) -> None:
    """Check that the packages of a study are installed, so that it does not end after hours of encoding and training.

    Args:
        tracking: whether results are logged to MLflow.

    Raises:
        OptionalImportError: when one is missing; the message has the command that installs it.

    Example:
        >>> check_packages()
    """
    for package in NEEDED if not tracking else (*NEEDED, optional_dependency("tracking", "mlflow")):
        _ = package.__version__


def collect_provenance(
    command: str,
    seeds: Sequence[Any],
    *,
    seconds: float | None = None,
    threads: int | None = None,
    packages: Sequence[str] = PACKAGES,
    repository: str | os.PathLike[str] = ".",
) -> dict[str, Any]:
    """Collect what is needed to reproduce a result, without names of persons, hosts or paths.

    Args:
        command: command that produces the result.
        seeds: all seeds of the result, in any nesting.
        seconds: duration of the work; without it there is no ``wall_seconds``.
        threads: number of threads of a process; by default that of PyTorch.
        packages: packages whose versions are recorded.
        repository: folder whose commit is recorded.

    Returns:
        ``command``, ``commit`` (None outside a Git repository), ``date`` (UTC), ``seeds``, ``versions``, ``machine``,
        ``threads`` and, if given, ``wall_seconds``.

    Example:
        >>> list(collect_provenance("scripts/reproduce ct", seeds=[0, 1], seconds=3.2))
        ['command', 'commit', 'date', 'seeds', 'versions', 'machine', 'threads', 'wall_seconds']
    """
    provenance = {
        "command": command,
        "commit": read_commit(repository),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": list(seeds),
        "versions": package_versions(packages),
        "machine": describe_machine(),
        "threads": torch.get_num_threads() if threads is None else threads,
    }
    return provenance if seconds is None else {**provenance, "wall_seconds": round(seconds)}


def command_of_process() -> str:
    """Return the command line of this process, with ``<path>`` in the place of absolute paths."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    start = Path(sys.argv[0]).name if spec is None else f"-m {spec.name.removesuffix('.__main__')}"
    options = " ".join(map(shlex.quote, sys.argv[1:]))
    return hide_absolute_paths(ValueError(), f"python {start} {options}".strip())


def read_commit(repository: str | os.PathLike[str] = ".") -> str | None:
    """Return the short hash of the checked-out commit, or None outside a Git repository or without Git."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def package_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of the packages that are installed.

    Example:
        >>> list(package_versions(["torch", "a-package-that-nobody-wrote"]))
        ['torch']
    """
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def describe_machine() -> str:
    """Return processor model, number of cores, memory and GPU model as one line, without the name of the host."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    parts = [model, f"{os.cpu_count()} cores"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        parts.append(f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB")
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)
