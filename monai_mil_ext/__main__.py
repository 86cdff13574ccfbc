"""Command ``python -m monai_mil_ext``: reports the installation, copies bundles, and joins feature files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from monai_mil_ext.apps.bundle_files import copy_bundle, list_bundles
from monai_mil_ext.apps.doctor import report_installation
from monai_mil_ext.data import join_bag_files

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Args:
        arguments: words of the command line, by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m monai_mil_ext", description="Multiple-instance learning for MONAI."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("doctor", help="print versions and optional packages, and test the installation")
    bundle = commands.add_parser("bundle", help="list the bundles, or copy one to work with")
    actions = bundle.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="print name and purpose of each bundle")
    copy = actions.add_parser("copy", help="copy a bundle into a folder, as a new folder with the name of the bundle")
    copy.add_argument("name", help="name of the bundle, such as scan_mil")
    copy.add_argument("folder", metavar="DIR", help="folder in which to make the new folder")
    join = commands.add_parser("join", help="join the feature files of several encoders to one file a case")
    join.add_argument("output", metavar="DIR", help="folder of the joined files")
    join.add_argument("sources", nargs="+", metavar="NAME=DIR", help="name of an encoder, and folder of its files")
    join.add_argument("--allow_missing", action="store_true", help="also join cases that lack a source")
    options = parser.parse_args(arguments)
    if options.command == "doctor":
        return report_installation()
    try:
        print(_join(options) if options.command == "join" else _bundle(options))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _bundle(options: argparse.Namespace) -> str:
    """List or copy bundles, and return what to print."""
    if options.action == "list":
        return "\n".join(f"{name:18} {purpose}" for name, purpose in list_bundles().items())
    return f"{copy_bundle(options.name, options.folder)}: start with docs/README.md"


def _join(options: argparse.Namespace) -> str:
    """Join feature files and return what was done."""
    words = [word.partition("=") for word in options.sources]
    folders = {name: folder for name, _, folder in words if name and folder}
    if len(folders) < len(words):
        raise ValueError(f"`sources` must be different names with a folder, such as uni=DIR, got {options.sources}.")
    joined = join_bag_files(folders, options.output, options.allow_missing)
    sizes = ", ".join(f"{name} ({size} features)" for name, size in joined.sources.items())
    left = "joined from the others" if options.allow_missing else "left out"
    note = f"; {len(joined.incomplete)} that lack a source {left}" if joined.incomplete else ""
    return f"{len(joined.files)} files of {sizes}{note}"


if __name__ == "__main__":
    sys.exit(main())
