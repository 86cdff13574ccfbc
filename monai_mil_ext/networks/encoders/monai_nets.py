"""Encoders from networks of MONAI, for images and for volumes."""

import os
from typing import Any, Callable, Mapping, Optional, Sequence, Tuple, Union

import torch
from monai.networks import nets
from torch import Tensor, nn

from monai_mil_ext.utils import check_choice

from .checkpoint import load_encoder_weights
from .encoder_base import InputSpec
from .instance_encoder import InstanceEncoder
from .intermediate_output import IntermediateOutput
from .volume_map_encoder import VolumeEncoder

__all__ = ["monai_encoder", "volume_encoder"]

# network, last layer of its encoder, and name prefixes of the weights that are not used
FAMILIES: Tuple[Tuple[type, str, Sequence[str]], ...] = (
    (nets.DenseNet, "class_layers.relu", ("class_layers.",)),
    (nets.ResNet, "layer4", ("fc.",)),
    (nets.ViT, "norm", ("classification_head.",)),
    (nets.SwinUNETR, "swinViT", ("encoder", "decoder", "out.")),
)


def monai_encoder(
    network: Union[str, nn.Module],
    checkpoint: Optional[Union[str, "os.PathLike[str]"]] = None,
    input_spec: Optional[InputSpec] = None,
    output: Union[str, Callable[[Any], Tensor]] = "mean",
    options: Optional[Mapping[str, Any]] = None,
    layer: Optional[str] = None,
    gray: bool = False,
    frozen: bool = True,
    amp_dtype: Optional[torch.dtype] = None,
) -> InstanceEncoder:
    """Create an encoder from a MONAI network (2D for slices), without its head.

    For DenseNet, ResNet, ViT and SwinUNETR the last layer of the encoder is known; for other networks the encoder uses
    the output of the network, or of ``layer``. Later layers are not computed.

    Args:
        network: module, or name of a class or function in :py:mod:`monai.networks.nets`.
        checkpoint: file of weights, of which only tensors are read; its head may have any size, and the head of the
            network is removed.
        input_spec: see :py:class:`InstanceEncoder`.
        output: see :py:class:`InstanceEncoder`.
        options: arguments of a network given by name.
        layer: dotted name of the module whose output is used.
        gray: see :py:class:`InstanceEncoder`.
        frozen: see :py:class:`InstanceEncoder`.
        amp_dtype: see :py:class:`InstanceEncoder`.

    Raises:
        ValueError: when a network is given by name without a checkpoint, or the checkpoint or the layer does not match.

    Example:
        >>> net = nets.DenseNet121(spatial_dims=2, in_channels=1, out_channels=2)
        >>> monai_encoder(net, output="mean_max")(torch.rand(3, 1, 64, 64)).shape
        torch.Size([3, 2048])
    """
    net, layer = _with_weights(network, checkpoint, options, layer)
    prefix = 1 if isinstance(net, nets.ViT) and hasattr(net, "cls_token") else 0
    trunk = net if layer is None else IntermediateOutput(net, layer)
    return InstanceEncoder(trunk, input_spec, output, prefix, gray, frozen=frozen, amp_dtype=amp_dtype)


def volume_encoder(
    network: Union[str, nn.Module],
    checkpoint: Optional[Union[str, "os.PathLike[str]"]] = None,
    input_spec: Optional[InputSpec] = None,
    options: Optional[Mapping[str, Any]] = None,
    layer: Optional[str] = None,
    frozen: bool = True,
    amp_dtype: Optional[torch.dtype] = None,
) -> VolumeEncoder:
    """Create an encoder of whole volumes from a 3D MONAI network, with each position of its last map as a token.

    Args:
        network: see :py:func:`monai_encoder`.
        checkpoint: see :py:func:`monai_encoder`.
        input_spec: see :py:class:`InstanceEncoder`.
        options: see :py:func:`monai_encoder`.
        layer: see :py:func:`monai_encoder`; its output must be a map (B, F, x, y, z).
        frozen: see :py:class:`InstanceEncoder`.
        amp_dtype: see :py:class:`InstanceEncoder`.

    Raises:
        ValueError: see :py:func:`monai_encoder`.

    Example:
        >>> net = nets.resnet10(spatial_dims=3, n_input_channels=1, num_classes=2)
        >>> volume_encoder(net)(torch.rand(1, 1, 64, 64, 32)).shape
        torch.Size([1, 512, 4, 4, 2])
    """
    net, layer = _with_weights(network, checkpoint, options, layer)
    trunk = net if layer is None else IntermediateOutput(net, layer)
    return VolumeEncoder(trunk, input_spec, frozen=frozen, amp_dtype=amp_dtype)


def _with_weights(
    network: Union[str, nn.Module],
    checkpoint: Optional[Union[str, "os.PathLike[str]"]],
    options: Optional[Mapping[str, Any]],
    layer: Optional[str],
) -> Tuple[nn.Module, Optional[str]]:
    if isinstance(network, str):
        check_choice("network", network, [name for name in dir(nets) if callable(getattr(nets, name))])
        if checkpoint is None:
            raise ValueError(f"`checkpoint` must be given for a network by name, got None for {network!r}.")
    elif options:
        raise ValueError(f"`options` must be None if the network is a module, got {dict(options)}.")
    net: nn.Module = getattr(nets, network)(**options or {}) if isinstance(network, str) else network
    last, unused = next(((end, prefixes) for kind, end, prefixes in FAMILIES if isinstance(net, kind)), (None, ()))
    if checkpoint is not None:
        load_encoder_weights(net, checkpoint, unused if layer is None else ())
    return net, layer or last
