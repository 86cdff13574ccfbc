"""The bundle bag_classifier in tests: its scripts under a name of their own, and small bags."""

import importlib.util
import sys
from pathlib import Path

import numpy as np

BUNDLE = Path(__file__).parents[2] / "bundles" / "bag_classifier"
NAME = "bag_classifier_scripts"  # another bundle has ``scripts`` too


def scripts(module):
    """A module of the bundle's scripts."""
    if NAME not in sys.modules:
        folder = BUNDLE / "scripts"
        spec = importlib.util.spec_from_file_location(
            NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        sys.modules[NAME] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{NAME}.{module}")


def bags(num_bags=40, seed=0, features=8, shift=4.0):
    """Bags of 2 to 6 instances; in every second bag one instance's first feature is moved."""
    draw = np.random.default_rng(seed)
    made = {}
    for i in range(num_bags):
        instances = draw.normal(size=(draw.integers(2, 7), features)).astype(np.float32)
        instances[0, 0] += shift * (i % 2)
        made[str(i)] = (i % 2, instances)
    return made
