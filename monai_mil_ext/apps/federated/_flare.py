"""Classes of NVIDIA FLARE; without ``nvflare`` they are placeholders that raise when used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai.utils import optional_import

__all__ = [
    "AppConstants",
    "EventType",
    "Executor",
    "FLComponent",
    "FLContext",
    "FLContextKey",
    "FLModel",
    "FLModelUtils",
    "ReturnCode",
    "Shareable",
    "Signal",
    "make_reply",
]

if TYPE_CHECKING:
    from nvflare.apis.event_type import EventType
    from nvflare.apis.executor import Executor
    from nvflare.apis.fl_component import FLComponent
    from nvflare.apis.fl_constant import FLContextKey, ReturnCode
    from nvflare.apis.fl_context import FLContext
    from nvflare.apis.shareable import Shareable, make_reply
    from nvflare.apis.signal import Signal
    from nvflare.app_common.abstract.fl_model import FLModel
    from nvflare.app_common.app_constant import AppConstants
    from nvflare.app_common.utils.fl_model_utils import FLModelUtils
else:
    API, COMMON = "nvflare.apis", "nvflare.app_common"
    EventType, _ = optional_import(f"{API}.event_type", name="EventType")
    Executor, _ = optional_import(f"{API}.executor", name="Executor", as_type="base")
    FLComponent, _ = optional_import(f"{API}.fl_component", name="FLComponent", as_type="base")
    FLContextKey, _ = optional_import(f"{API}.fl_constant", name="FLContextKey")
    ReturnCode, _ = optional_import(f"{API}.fl_constant", name="ReturnCode")
    FLContext, _ = optional_import(f"{API}.fl_context", name="FLContext", as_type="base")
    Shareable, _ = optional_import(f"{API}.shareable", name="Shareable", as_type="base")
    make_reply, _ = optional_import(f"{API}.shareable", name="make_reply")
    Signal, _ = optional_import(f"{API}.signal", name="Signal", as_type="base")
    FLModel, _ = optional_import(f"{COMMON}.abstract.fl_model", name="FLModel")
    AppConstants, _ = optional_import(f"{COMMON}.app_constant", name="AppConstants")
    FLModelUtils, _ = optional_import(f"{COMMON}.utils.fl_model_utils", name="FLModelUtils")
