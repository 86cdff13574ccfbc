"""Folders of the repository, and workflows of its bundles and experiments."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

__all__ = ["BUNDLES", "RESULTS", "ROOT", "RUNS", "make_workflow", "prepare_data", "use_scripts"]

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = ROOT / "bundles"
RESULTS = ROOT / "docs" / "results"
RUNS = ROOT / "runs"


def make_workflow(folder: Path, configs: Sequence[str | Path], **overrides: Any) -> ConfigWorkflow:
    """Create a workflow, not yet initialized.

    Args:
        folder: folder of a bundle or an experiment; its ``scripts`` become importable.
        configs: names of files in its ``configs``, without suffix, or paths of other files.
        **overrides: overrides of the configs.
    """
    use_scripts(folder)
    files = [str(config if isinstance(config, Path) else folder / "configs" / f"{config}.yaml") for config in configs]
    return ConfigWorkflow(files, workflow_type="train", logging_file=False, **{"bundle_root": str(folder), **overrides})


def use_scripts(folder: Path) -> None:
    """Make the package ``scripts`` that of a bundle or an experiment, whichever was imported before."""
    sys.path[:] = [str(folder), *(entry for entry in sys.path if entry != str(folder))]
    for name in [name for name in sys.modules if name == "scripts" or name.startswith("scripts.")]:
        if not str(getattr(sys.modules[name], "__file__", None)).startswith(str(folder / "scripts")):
            del sys.modules[name]


def prepare_data(bundle: str, *words: str) -> None:
    """Run ``python -m scripts.prepare`` in the folder of a bundle."""
    subprocess.run([sys.executable, "-m", "scripts.prepare", *words], cwd=BUNDLES / bundle, check=True)
