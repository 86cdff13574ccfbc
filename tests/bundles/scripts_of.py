"""Import of the modules of a bundle's ``scripts`` under a name for each bundle."""

import importlib.util
import sys
from pathlib import Path

BUNDLES = Path(__file__).parents[2] / "bundles"


def scripts_of(bundle, module):
    """A module of the scripts of ``bundle``, whatever ``scripts`` is on the path."""
    name = f"{bundle}_scripts"
    if name not in sys.modules:
        folder = BUNDLES / bundle / "scripts"
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{name}.{module}")
