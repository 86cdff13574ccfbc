"""Experiments that write docs/results/*.json: ``scripts/reproduce NAME [options]``.

``ct`` runs the unmodified configs of bundles/scan_mil: each patient left out in turn, three seeds, with and without
Normal Guidance. ``lesions`` compares methods on heads with inserted lesions, and ``claims`` tests there what the
papers claim. ``active_learning`` compares orders of labeling there. ``semi_synthetic``, ``classical``, ``guidance``
and ``mnist_bags`` run their protocols. ``attention_mass`` and ``stability`` plot the runs of ``mnist_bags`` or of any
bundle. ``ct_protocol`` searches settings on a cohort of labeled scans, ``report`` writes a page of any evaluations,
and ``conformal`` counts how often instance sets are right. ``rsna_ich``, ``camelyon16``, ``panda``, ``camelyon16_aem``
and ``camelyon17_aem`` fetch a public feature set, and compare methods with published values. Every experiment can be
stopped and continued. Its options are listed by ``scripts/reproduce NAME --help``.
``scripts/results`` writes the tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

__all__ = ["EXPERIMENTS", "main"]

PUBLIC_SETS = ("rsna_ich", "camelyon16", "panda", "camelyon16_aem", "camelyon17_aem")
EXPERIMENTS: dict[str, tuple[str, ...]] = {  # module, and the first words of its command line
    "ct": ("ct",),
    "semi_synthetic": ("semi_synthetic.protocol",),
    "classical": ("classical.protocol",),
    "guidance": ("guidance.protocol",),
    "mnist_bags": ("mnist_bags.protocol",),
    "attention_mass": ("attention", "mass"),
    "stability": ("attention", "stability"),
    "lesions": ("lesions.protocol",),
    "claims": ("claims.protocol",),
    "active_learning": ("active_learning",),
    "ct_protocol": ("ct_protocol.protocol",),
    "report": ("ct_protocol.report",),
    **{name: ("public_sets.protocol", name) for name in PUBLIC_SETS},
    "conformal": ("conformal",),
}


def main(words: Sequence[str] | None = None) -> None:
    """Run an experiment from the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Further options are those of the experiment.",
    )
    parser.add_argument("name", choices=list(EXPERIMENTS))
    parser.add_argument("options", nargs=argparse.REMAINDER)
    args = parser.parse_args(words)
    module, *first = EXPERIMENTS[args.name]
    import_module(f"experiments.{module}").main([*first, *args.options])
