"""Instance encoders, frozen by default, that check their input images."""

from .checkpoint import load_encoder_weights
from .encoder_base import EncoderInput
from .grey import fold_first_conv, fold_grey
from .hugging_face import transformers_encoder
from .instance_encoder import InstanceEncoder
from .layer_output import LayerOutput
from .mobilenet_v2 import MobileNetV2Features
from .monai_nets import monai_encoder, volume_encoder
from .timm_models import timm_encoder
from .volume_maps import VolumeEncoder

__all__ = [
    "EncoderInput",
    "InstanceEncoder",
    "LayerOutput",
    "MobileNetV2Features",
    "VolumeEncoder",
    "fold_first_conv",
    "fold_grey",
    "load_encoder_weights",
    "monai_encoder",
    "timm_encoder",
    "transformers_encoder",
    "volume_encoder",
]
