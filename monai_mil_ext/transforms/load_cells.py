"""Loading crops of cells as a bag."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ensure_tuple_rep
from monai.utils.enums import TransformBackends

from monai_mil_ext.data import CellImages
from monai_mil_ext.utils import check_positive

__all__ = ["CELL_NAMES", "LoadCellBag", "LoadCellBagD", "LoadCellBagDict", "LoadCellBagd"]

CELL_NAMES = "cell_names"


class LoadCellBag(Transform):
    """Load the cells of one patient, a folder or zip archive of crops, as a bag (N, channels, h, w) of [0, 1].

    Cells come in the order of their names, which the bag keeps under ``meta["cell_names"]``; what is read and what is
    refused is told by :py:class:`monai_mil_ext.data.CellImages`.

    Args:
        size: height and width, or one number for both, that every crop is resized to; ``None`` leaves crops as they
            are, and they must be of one size.
        channels: 3 for colours, 1 for grey.
        max_cells: most cells that a bag may have.

    Raises:
        FileNotFoundError: when there is no such folder or file.
        EmptyBagError: when it has no cell.
        ValueError: when a size is not positive, ``channels`` is neither, crops of several sizes are not resized, or
            as of ``CellImages``; a crop that can't be read is named.

    Example:
        >>> from matplotlib.image import imsave
        >>> os.mkdir("cells")
        >>> for name, side in (("lymphocyte_1.png", 30), ("blast_7.png", 50)):
        ...     imsave(f"cells/{name}", np.full((side, side, 3), 0.5))
        >>> bag = LoadCellBag(size=40)("cells")
        >>> bag.shape, bag.meta["cell_names"]
        (torch.Size([2, 3, 40, 40]), ['blast_7.png', 'lymphocyte_1.png'])
    """

    backend = [TransformBackends.NUMPY]

    def __init__(self, size: int | tuple[int, int] | None = 72, channels: int = 3, max_cells: int = 50_000) -> None:
        self.size: tuple[int, int] | None = None
        if size is not None:
            height, width = ensure_tuple_rep(size, 2)
            check_positive(size=height)
            check_positive(size=width)
            self.size = (height, width)
        if channels not in (1, 3):
            raise ValueError(f"`channels` must be 1 or 3, got {channels!r}.")
        check_positive(max_cells=max_cells)
        self.channels = channels
        self.max_cells = max_cells

    def __call__(self, path: str | os.PathLike[str]) -> MetaTensor:
        """Load the bag."""
        cells = CellImages(path, self.max_cells)
        first = cells.read(cells.names[0], self.channels, self.size)
        bag = np.empty((len(cells), *first.shape), dtype=np.uint8)
        for i, name in enumerate(cells.names):
            image = cells.read(name, self.channels, self.size) if i else first
            if image.shape != first.shape:
                rule = f"have the size {first.shape[:2]} of {cells.names[0]!r} unless all are resized"
                raise ValueError(f"cell {name!r} of {cells.path.name!r} must {rule}, got {image.shape[:2]}.")
            bag[i] = image
        values = torch.from_numpy(bag).permute(0, 3, 1, 2).float().div_(255)
        return MetaTensor(values.contiguous(), meta={CELL_NAMES: list(cells.names)})


class LoadCellBagd(MapTransform):
    """Dictionary form of :py:class:`LoadCellBag`: the bag takes the place of the path.

    Args:
        keys: paths of folders or zip archives.
        size: see :py:class:`LoadCellBag`.
        channels: see :py:class:`LoadCellBag`.
        max_cells: see :py:class:`LoadCellBag`.
        allow_missing_keys: whether to pass over a key that is not there.
    """

    backend = LoadCellBag.backend

    def __init__(
        self,
        keys: KeysCollection,
        size: int | tuple[int, int] | None = 72,
        channels: int = 3,
        max_cells: int = 50_000,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadCellBag(size, channels, max_cells)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the bag of every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.load(d[key])
        return d


LoadCellBagD = LoadCellBagDict = LoadCellBagd
