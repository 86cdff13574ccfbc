"""Classes of MONAI Label that the app uses; without ``monailabel`` they are placeholders that raise when used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai.utils import optional_import

__all__ = [
    "BatchInferTask",
    "DICOMWebDatastore",
    "HTTPException",
    "InferTask",
    "LocalDatastore",
    "MONAILabelApp",
    "ScoringMethod",
    "Sessions",
    "Strategy",
    "TrainTask",
    "Writer",
]

FileLock, _ = optional_import("filelock", name="FileLock", as_type="base")

if TYPE_CHECKING:
    from fastapi import HTTPException
    from monailabel.datastore.dicom import DICOMWebDatastore
    from monailabel.datastore.local import LocalDatastore
    from monailabel.interfaces.app import MONAILabelApp
    from monailabel.interfaces.tasks.batch_infer import BatchInferTask
    from monailabel.interfaces.tasks.infer_v2 import InferTask
    from monailabel.interfaces.tasks.scoring import ScoringMethod
    from monailabel.interfaces.tasks.strategy import Strategy
    from monailabel.interfaces.tasks.train import TrainTask
    from monailabel.transform.writer import Writer
    from monailabel.utils.sessions import Sessions
else:
    HTTPException, _ = optional_import("fastapi", name="HTTPException", as_type="base")
    TASKS = "monailabel.interfaces.tasks"
    LocalDatastore, _ = optional_import("monailabel.datastore.local", name="LocalDatastore", as_type="base")
    DICOMWebDatastore, _ = optional_import("monailabel.datastore.dicom", name="DICOMWebDatastore", as_type="base")
    Sessions, _ = optional_import("monailabel.utils.sessions", name="Sessions", as_type="base")
    MONAILabelApp, _ = optional_import("monailabel.interfaces.app", name="MONAILabelApp", as_type="base")
    BatchInferTask, _ = optional_import(f"{TASKS}.batch_infer", name="BatchInferTask", as_type="base")
    InferTask, _ = optional_import(f"{TASKS}.infer_v2", name="InferTask", as_type="base")
    ScoringMethod, _ = optional_import(f"{TASKS}.scoring", name="ScoringMethod", as_type="base")
    Strategy, _ = optional_import(f"{TASKS}.strategy", name="Strategy", as_type="base")
    TrainTask, _ = optional_import(f"{TASKS}.train", name="TrainTask", as_type="base")
    Writer, _ = optional_import("monailabel.transform.writer", name="Writer", as_type="base")
