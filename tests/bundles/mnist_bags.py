"""The bundle mnist_bags in tests: its scripts under a name of their own, and digits of two brightnesses."""

import importlib.util
import sys
from pathlib import Path

import numpy as np

BUNDLE = Path(__file__).parents[2] / "bundles" / "mnist_bags"
NAME = "mnist_bags_scripts"  # another bundle has ``scripts`` too
SMALL = {
    "num_train": 24,
    "num_val": 12,
    "num_test": 12,
    "num_samples": 2,
    "epochs": 2,
    "batch_size": 8,
    "in_features": 16,
    "encoder_layers": [
        {"_target_": "torch.nn.AvgPool2d", "kernel_size": 14},
        {"_target_": "torch.nn.Flatten"},
        {"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 16},
        {"_target_": "torch.nn.ReLU"},
    ],
}


def scripts(module):
    """A module of the bundle's scripts."""
    if NAME not in sys.modules:
        folder = BUNDLE / "scripts"
        spec = importlib.util.spec_from_file_location(
            NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        sys.modules[NAME] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{NAME}.{module}")


def write_digits(folder, size=60):
    """A file of digits as ``prepare`` makes it; nines are bright and all others dark."""
    arrays, draw = {}, np.random.default_rng(0)
    for part in ("train", "val", "test"):
        classes = np.arange(size) % 10
        grey = draw.integers(0, 60, (size, 1, 28, 28)) + 180 * (classes == 9)[:, None, None, None]
        arrays |= {f"{part}_images": grey.astype(np.uint8), f"{part}_classes": classes}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "digits.npz", **arrays)
    return folder
