"""Image encoders, frozen by default, with a declared input."""

from .checkpoint import load_encoder_weights
from .encoder_base import InputSpec
from .gray_input import adapt_input_conv, fold_rgb_conv
from .hugging_face import transformers_encoder
from .instance_encoder import InstanceEncoder
from .intermediate_output import IntermediateOutput
from .mobilenet_v2 import MobileNetV2Features
from .monai_nets import monai_encoder, volume_encoder
from .timm_models import timm_encoder
from .volume_map_encoder import VolumeEncoder

__all__ = [
    "InputSpec",
    "InstanceEncoder",
    "IntermediateOutput",
    "MobileNetV2Features",
    "VolumeEncoder",
    "adapt_input_conv",
    "fold_rgb_conv",
    "load_encoder_weights",
    "monai_encoder",
    "timm_encoder",
    "transformers_encoder",
    "volume_encoder",
]
