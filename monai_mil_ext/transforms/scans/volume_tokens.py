"""Transforms from a scan to the tokens of a 3D encoder, and from token scores back to the voxels of the scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data import MetaTensor
from monai.networks import eval_mode
from monai.transforms import MapTransform, Transform
from monai.utils import SpaceKeys
from monai.utils.enums import TransformBackends
from torch import Tensor, nn
from torch.nn import functional as F

from monai_mil_ext.data.scans.stack_grid import RESAMPLE
from monai_mil_ext.utils import BagKeys, InputError, check_choice, drop_padding

from .slice_order import checked_affine

__all__ = [
    "TokenScoresToVolume",
    "TokenScoresToVolumeD",
    "TokenScoresToVolumeDict",
    "TokenScoresToVolumed",
    "TokenizedVolume",
    "VolumeTokens",
    "VolumeTokensD",
    "VolumeTokensDict",
    "VolumeTokensd",
]


class TokenizedVolume(NamedTuple):
    """Tokens of a scan, with the geometry that leads back to its voxel array."""

    bag: Tensor  # (N, F)
    position: Tensor  # (N, 3) RAS mm, center of the box of each token
    grid_shape: Tensor  # (3,) number of tokens along each axis of the voxel array; their product is N
    affine: Tensor  # (4, 4) float64, from indices of the scan's voxel array to RAS mm
    spatial_shape: Tensor  # (3,) shape of the scan's voxel array


class VolumeTokens(Transform):
    r"""Encode a scan (C, X, Y, Z) with a 3D network and split its feature map (F, x, y, z) into tokens (N, F).

    Tokens divide the voxel array evenly: along an axis of S voxels and n tokens, token i covers the voxels from
    :math:`iS/n` up to :math:`(i+1)S/n`, and its center is voxel :math:`(i + 1/2) S/n - 1/2`.

    Args:
        encoder: 3D network, for example :py:class:`monai_mil_ext.networks.encoders.VolumeEncoder`; used in evaluation
            mode and without gradients.
        device: device to encode on; None uses the encoder's.

    Raises:
        ValueError: if the input is not a :py:class:`monai.data.MetaTensor` (C, X, Y, Z) with an invertible affine in
            RAS mm, or the encoder does not return a feature map.
        InputError: (a ``ValueError``) if the scan is an irregular series that was not resampled.

    Example:
        >>> scan = MetaTensor(torch.rand(1, 8, 8, 4), affine=torch.diag(torch.tensor([1.0, 1.0, 2.5, 1.0])))
        >>> tokens = VolumeTokens(nn.Conv3d(1, 6, 4, stride=4))(scan)
        >>> tuple(tokens.bag.shape), tokens.position[0].tolist()
        ((4, 6), [1.5, 1.5, 3.75])
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, encoder: nn.Module, device: str | torch.device | None = None) -> None:
        self.encoder = encoder
        self.device = None if device is None else torch.device(device)

    def __call__(self, image: MetaTensor) -> TokenizedVolume:
        """Encode ``image`` and return its tokens."""
        affine = checked_affine(image)
        _check_regular(image)
        device = self.device or next((p.device for p in self.encoder.parameters()), torch.device("cpu"))
        encoder = self.encoder.to(device)
        with eval_mode(encoder):
            features = encoder(image.as_tensor().float().unsqueeze(0).to(device))
        if not isinstance(features, Tensor) or features.ndim != 5 or len(features) != 1:
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"`encoder` must give a map (1, F, x, y, z), got {got}.")
        bag = features[0].flatten(1).T.float().cpu().contiguous()
        shape, grid = image.shape[1:], features.shape[2:]
        axes = [(torch.arange(n, dtype=torch.float64) + 0.5) * (s / n) - 0.5 for s, n in zip(shape, grid, strict=True)]
        centers = torch.cartesian_prod(*axes).reshape(-1, 3)
        position = centers @ affine[:3, :3].T + affine[:3, 3]
        return TokenizedVolume(bag, position.float(), torch.tensor(grid), affine, torch.tensor(shape))


class TokenScoresToVolume(Transform):
    """Map the scores of tokens back to the scan, as the inverse of :py:class:`VolumeTokens`.

    The volume has the shape of the voxel array and exactly the affine of the scan.

    Args:
        mode: ``"nearest"`` assigns to every voxel the score of the token whose box contains its center; ``"linear"``
            interpolates between the centers of the boxes.

    Raises:
        ValueError: if the number of scores differs from that of the tokens.

    Example:
        >>> volume = TokenScoresToVolume()(torch.tensor([0.2, 0.8]), [1, 1, 2], torch.eye(4), [3, 3, 4])
        >>> volume[0, 0, 0].tolist()
        [0.20000000298023224, 0.20000000298023224, 0.800000011920929, 0.800000011920929]
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, mode: str = "nearest") -> None:
        check_choice("mode", mode, ["nearest", "linear"])
        self.mode = mode

    def __call__(
        self,
        scores: NdarrayOrTensor,
        grid_shape: NdarrayOrTensor,
        affine: NdarrayOrTensor,
        spatial_shape: NdarrayOrTensor,
    ) -> MetaTensor:
        """Convert ``scores`` (N,) or (N, A) to a float32 volume (A, X, Y, Z)."""
        values = _plain(scores).detach().float().cpu()
        values = values.unsqueeze(-1) if values.ndim == 1 else values
        grid, shape = ([int(size) for size in sizes] for sizes in (grid_shape, spatial_shape))
        if values.ndim != 2 or len(values) != grid[0] * grid[1] * grid[2]:
            raise ValueError(f"`scores` must have one row for each token of {grid}, got {tuple(values.shape)}.")
        boxes = values.T.reshape(1, -1, *grid)
        if self.mode == "nearest":
            volume = F.interpolate(boxes, size=shape, mode="nearest-exact")
        else:
            volume = F.interpolate(boxes, size=shape, mode="trilinear", align_corners=False)
        return MetaTensor(volume[0], affine=_plain(affine).double().cpu().clone(), meta={"space": SpaceKeys.RAS})


class VolumeTokensd(MapTransform):
    """Dictionary form of :py:class:`VolumeTokens`, which replaces the scan by its bag.

    It adds the items ``position`` (N, 3), ``grid_shape``, ``affine`` and ``spatial_shape`` of the first key.

    Args:
        keys: scans.
        encoder: see :py:class:`VolumeTokens`.
        device: see :py:class:`VolumeTokens`.
        allow_missing_keys: whether to skip missing keys.
    """

    backend = VolumeTokens.backend

    def __init__(
        self,
        keys: KeysCollection,
        encoder: nn.Module,
        device: str | torch.device | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.tokens = VolumeTokens(encoder, device)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Encode the scan of each key."""
        d = dict(data)
        for i, key in enumerate(self.key_iterator(d)):
            tokens = self.tokens(d[key])
            d[key] = tokens.bag
            if i == 0:
                d.update({name: value for name, value in tokens._asdict().items() if name != "bag"})
        return d


class TokenScoresToVolumed(MapTransform):
    """Dictionary form of :py:class:`TokenScoresToVolume`.

    It uses the items ``grid_shape``, ``affine`` and ``spatial_shape``, and drops padding if there is a ``mask``.

    Args:
        keys: scores (N,) or (N, A) of the tokens.
        mode: see :py:class:`TokenScoresToVolume`.
        allow_missing_keys: whether to skip missing keys.
    """

    backend = TokenScoresToVolume.backend

    def __init__(self, keys: KeysCollection, mode: str = "nearest", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.to_volume = TokenScoresToVolume(mode)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert the scores of each key to a volume."""
        d = dict(data)
        for key in self.key_iterator(d):
            scores = drop_padding(d[key], d)
            d[key] = self.to_volume(scores, d[BagKeys.GRID_SHAPE], d[BagKeys.AFFINE], d[BagKeys.SPATIAL_SHAPE])
        return d


def _check_regular(image: MetaTensor) -> None:
    if str(BagKeys.SLICE_POSITION) in image.meta:
        raise InputError(
            "`image` must be a regular grid of voxels for tokens, got the slices of an irregular series; "
            "`irregular` can be resample.",
            option=RESAMPLE,
        )


def _plain(values: NdarrayOrTensor) -> Tensor:
    return values.as_tensor() if isinstance(values, MetaTensor) else torch.as_tensor(values)


VolumeTokensD = VolumeTokensDict = VolumeTokensd
TokenScoresToVolumeD = TokenScoresToVolumeDict = TokenScoresToVolumed
