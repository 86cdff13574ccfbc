"""Command ``python -m monai_mil_ext``: reports the installation, lists and copies the bundles."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from monai_mil_ext.apps.bundle_files import copy_bundle, list_bundles
from monai_mil_ext.apps.doctor import report_installation

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
    options = parser.parse_args(arguments)
    if options.command == "doctor":
        return report_installation()
    if options.action == "list":
        print("\n".join(f"{name:18} {purpose}" for name, purpose in list_bundles().items()))
        return 0
    try:
        print(f"{copy_bundle(options.name, options.folder)}: start with docs/README.md")
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
