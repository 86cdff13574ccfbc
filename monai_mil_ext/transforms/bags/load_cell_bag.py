"""Transforms that load cell images as a bag."""

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
    """Load the cell images of a patient from a folder or zip archive as a bag (N, channels, h, w) in [0, 1].

    Cells are in the order of their names, which the bag stores in ``meta["cell_names"]``.
    :py:class:`monai_mil_ext.data.CellImages` documents the supported files.

    Args:
        size: height and width, or one number for both, to which all images are resized; with ``None`` they are not
            resized and must have the same size.
        channels: 3 for color, 1 for gray.
        max_cells: largest number of cells of a bag.

    Raises:
        FileNotFoundError: if the folder or file does not exist.
        EmptyBagError: if it has no cell.
        ValueError: if an argument is not allowed, if images of different sizes are not resized, if an image can't be
            read, or as in ``CellImages``.

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
        """Load the cells of the folder or archive at ``path``."""
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
    """Dictionary form of :py:class:`LoadCellBag`, which replaces the path by the bag.

    Args:
        keys: paths of folders or zip archives.
        size: see :py:class:`LoadCellBag`.
        channels: see :py:class:`LoadCellBag`.
        max_cells: see :py:class:`LoadCellBag`.
        allow_missing_keys: whether to skip missing keys.
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
        """Load the bag of each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.load(d[key])
        return d


LoadCellBagD = LoadCellBagDict = LoadCellBagd
