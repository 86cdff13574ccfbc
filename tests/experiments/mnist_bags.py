"""Small settings of the experiment mnist_bags, and digits of two brightnesses."""

import numpy as np

from tests.workflows import ROOT

HERE = ROOT / "scripts" / "experiments" / "mnist_bags"
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


def write_digits(folder, size=60):
    """Write a file of digits as ``prepare`` does; nines are bright and all others dark."""
    arrays, draw = {}, np.random.default_rng(0)
    for part in ("train", "val", "test"):
        classes = np.arange(size) % 10
        gray = draw.integers(0, 60, (size, 1, 28, 28)) + 180 * (classes == 9)[:, None, None, None]
        arrays |= {f"{part}_images": gray.astype(np.uint8), f"{part}_classes": classes}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "digits.npz", **arrays)
    return folder
