"""Encoders from vision models of Hugging Face ``transformers``, by name or from a folder."""

import os
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Union

import torch
from torch import Tensor, nn

from monai_mil_ext.utils import optional_dependency

from .encoder_base import InputSpec
from .hub_models import explain_hub_errors, is_local_only
from .instance_encoder import InstanceEncoder

__all__ = ["transformers_encoder"]

transformers = optional_dependency("encoders", "transformers")
ImageProcessingMixin = optional_dependency("encoders", "transformers.image_processing_base", "ImageProcessingMixin")


def transformers_encoder(
    model: Union[str, "os.PathLike[str]"],
    input_spec: Optional[InputSpec] = None,
    output: Union[str, Callable[[Any], Tensor]] = "cls",
    gray: bool = False,
    local_files_only: bool = False,
    revision: str = "main",
    frozen: bool = True,
    amp_dtype: Optional[torch.dtype] = None,
) -> InstanceEncoder:
    """Create an encoder from a vision model: ViT, DINOv2 (RAD-DINO), with or without registers, ResNet, ConvNeXt, ...

    Weights are read from safetensors files only, and code of a repository is never run. The normalization and the size
    of images are read from the image processor of the model. Its rescaling (mostly by 1/255) is not applied: images
    must already be rescaled, to values from 0 to 1. The encoder uses the normalized tokens of the last layer; a pooler
    is dropped.

    Args:
        model: name on the hub, or a folder.
        input_spec: specification of the images, instead of that of the image processor.
        output: see :py:class:`InstanceEncoder`; use ``"mean"`` for a model without a class token.
        gray: see :py:class:`InstanceEncoder`.
        local_files_only: whether to use local files only, without network access.
        revision: revision on the hub; a commit pins the weights.
        frozen: see :py:class:`InstanceEncoder`.
        amp_dtype: see :py:class:`InstanceEncoder`.

    Raises:
        OptionalImportError: without ``transformers`` (``pip install monai-mil-ext[encoders]``).
        OSError: when the model, or its weights as safetensors, cannot be loaded; it says whether the hub can't be
            reached, has no such model, or denies access.
        ValueError: when weights are missing, or there is neither ``input_spec`` nor an image processor.
    """
    _ = transformers.AutoModel  # the error of a missing package comes before one of the hub
    source = {"local_files_only": is_local_only(model, revision, local_files_only), "revision": revision}
    with explain_hub_errors(model):
        input_spec = input_spec or _processor_input(str(model), source)
        net, report = transformers.AutoModel.from_pretrained(
            str(model),
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            **source,
        )
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise ValueError(f"`model` must come with all weights, got none for {', '.join(missing)}.")
    _drop_unused(net)
    prefix = _num_prefix_tokens(net)
    return InstanceEncoder(_LastHiddenState(net), input_spec, output, prefix, gray, frozen=frozen, amp_dtype=amp_dtype)


class _LastHiddenState(nn.Module):
    """Network that returns the last hidden state: tokens (N, T, F) or a map (N, F, h, w)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Run the model on images (N, C, h, w)."""
        tokens: Tensor = self.net(pixel_values=x).last_hidden_state
        return tokens


def _processor_input(model: str, source: Mapping[str, Any]) -> InputSpec:
    """Read the specification of the images from the image processor of the model."""
    try:
        settings: Dict[str, Any] = ImageProcessingMixin.get_image_processor_dict(model, **source)[0]
    except OSError as error:
        raise ValueError(
            f"`input_spec` must be given for a model without an image processor, got {model!r}."
        ) from error
    normalize = settings.get("do_normalize", True)
    mean = settings["image_mean"] if normalize else [0.0]
    std = settings["image_std"] if normalize else [1.0]
    high = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 255.0
    size = settings.get("crop_size") if settings.get("do_center_crop") else settings.get("size")
    return InputSpec(3, _image_size(size), _to_list(mean), _to_list(std), (0.0, float(high)))


def _image_size(size: Any) -> Optional[List[int]]:
    if isinstance(size, dict):
        return [size["height"], size["width"]] if "height" in size else None
    return [size, size] if isinstance(size, int) else size


def _to_list(value: Union[float, Sequence[float]]) -> List[float]:
    return [float(v) for v in value] if isinstance(value, (list, tuple)) else [float(value)]  # type: ignore[arg-type]


def _drop_unused(net: Any) -> None:
    """Drop the pooler, whose weights may be random, and attributes that would change the fingerprint of the network."""
    pooler = getattr(net, "pooler", None)
    if pooler is not None and any(True for _ in pooler.parameters()):
        net.pooler = None
    vars(net).pop("_weight_conversions", None)
    for module in net.modules():
        if hasattr(module, "name_or_path"):
            module.name_or_path = ""
        if hasattr(module, "config"):
            module.config._name_or_path = ""


def _num_prefix_tokens(net: nn.Module) -> int:
    """Count the class token and the registers, which precede the tokens of the image."""
    parameters = {name.rpartition(".")[2]: value for name, value in net.named_parameters()}
    registers = parameters.get("register_tokens")
    return int("cls_token" in parameters) + (0 if registers is None else registers.shape[1])
