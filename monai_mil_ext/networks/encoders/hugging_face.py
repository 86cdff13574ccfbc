"""Encoders from Hugging Face: vision models of ``transformers``, by name or from a folder."""

import os
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Union

import torch
from torch import Tensor, nn

from monai_mil_ext.utils import import_extra

from .encoder_base import EncoderInput
from .instance_encoder import InstanceEncoder

__all__ = ["transformers_encoder"]


def transformers_encoder(
    model: Union[str, "os.PathLike[str]"],
    expects: Optional[EncoderInput] = None,
    output: Union[str, Callable[[Any], Tensor]] = "cls",
    grey: bool = False,
    local_files_only: bool = False,
    revision: str = "main",
    frozen: bool = True,
    amp_dtype: Optional[torch.dtype] = None,
) -> InstanceEncoder:
    """Make an encoder of a vision model: ViT, DINOv2 (RAD-DINO), with or without registers, ResNet, ConvNeXt, ...

    Weights come from safetensors files only, and code of a repository is never run. How images are normalised and how
    large they are is read from the image processor beside the model. Its rescaling (mostly by 1/255) is left out:
    images come in its outcome, from 0 to 1. Tokens of the last layer are taken, after its norm; a pooler is dropped.

    Args:
        model: name on the hub, or a folder.
        expects: instead of what the image processor says.
        output: see :py:class:`InstanceEncoder`; a model without a class token takes ``"mean"``.
        grey: see :py:class:`InstanceEncoder`.
        local_files_only: whether to stay off the network.
        revision: on the hub; a commit there pins the weights.
        frozen: see :py:class:`InstanceEncoder`.
        amp_dtype: see :py:class:`InstanceEncoder`.

    Raises:
        OptionalImportError: without ``transformers`` (``pip install monai-mil-ext[encoders]``).
        OSError: when the model, or its weights as safetensors, can't be had.
        ValueError: when weights are missing, or nothing says what images must be.
    """
    transformers = import_extra("encoders", "transformers")  # takes long to import
    where = {"local_files_only": local_files_only, "revision": revision}
    expects = expects or _expected(str(model), where)
    net, report = transformers.AutoModel.from_pretrained(
        str(model),
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
        output_loading_info=True,
        **where,
    )
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise ValueError(f"`model` must come with all weights, got none for {', '.join(missing)}.")
    _drop_what_is_not_used(net)
    prefix = _prefix_tokens(net)
    return InstanceEncoder(_LastHiddenState(net), expects, output, prefix, grey, frozen=frozen, amp_dtype=amp_dtype)


class _LastHiddenState(nn.Module):
    """Tokens (N, T, F) or a map (N, F, h, w)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Run the model on images (N, C, h, w)."""
        tokens: Tensor = self.net(pixel_values=x).last_hidden_state
        return tokens


def _expected(model: str, where: Mapping[str, Any]) -> EncoderInput:
    base = import_extra("encoders", "transformers.image_processing_base", "ImageProcessingMixin")
    try:
        told: Dict[str, Any] = base.get_image_processor_dict(model, **where)[0]
    except OSError as error:
        raise ValueError(f"`expects` must be given for a model without an image processor, got {model!r}.") from error
    normalised = told.get("do_normalize", True)
    mean = told["image_mean"] if normalised else [0.0]
    std = told["image_std"] if normalised else [1.0]
    high = 255 * told.get("rescale_factor", 1 / 255) if told.get("do_rescale", True) else 255.0
    size = told.get("crop_size") if told.get("do_center_crop") else told.get("size")
    return EncoderInput(3, _size(size), _sequence(mean), _sequence(std), (0.0, float(high)))


def _size(told: Any) -> Optional[List[int]]:
    if isinstance(told, dict):
        return [told["height"], told["width"]] if "height" in told else None
    return [told, told] if isinstance(told, int) else told


def _sequence(told: Union[float, Sequence[float]]) -> List[float]:
    return [float(v) for v in told] if isinstance(told, (list, tuple)) else [float(told)]  # type: ignore[arg-type]


def _drop_what_is_not_used(net: Any) -> None:
    """A pooler may have random weights; where a model came from and how it was read is no part of what it computes."""
    pooler = getattr(net, "pooler", None)
    if pooler is not None and any(True for _ in pooler.parameters()):
        net.pooler = None
    vars(net).pop("_weight_conversions", None)
    for module in net.modules():
        if hasattr(module, "name_or_path"):
            module.name_or_path = ""
        if hasattr(module, "config"):
            module.config._name_or_path = ""


def _prefix_tokens(net: nn.Module) -> int:
    """The class token and the registers, which stand before the tokens of the image."""
    parameters = {name.rpartition(".")[2]: value for name, value in net.named_parameters()}
    registers = parameters.get("register_tokens")
    return int("cls_token" in parameters) + (0 if registers is None else registers.shape[1])
