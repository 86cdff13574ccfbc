"""Small bags of features, small slides and workflows for tests of wsi_mil."""

from pathlib import Path

import numpy as np
from monai.bundle import ConfigWorkflow

from monai_mil_ext.data import write_bag
from tests.make_slide import stained, write_slide

BUNDLES = Path(__file__).parents[2] / "bundles"
OVERLAYS = {"qgmil": (), "asmil": ("asmil",)}  # by network
F = 16
SMALL = {
    "network_def#hidden_size": 16,
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 0.003,
    "num_folds": 3,
    "num_samples": 20,
}
ENCODER = {
    "encoder": {
        "_target_": "monai_mil_ext.networks.encoders.InstanceEncoder",
        "net": "$torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())",
        "input_spec": {"_target_": "monai_mil_ext.networks.encoders.InputSpec", "channels": 3, "size": [32, 32]},
        "output": "identity",
    },
    "tile_size": 32,
}


def write_cohort(folder, patients=18, classes=2, seed=0):
    """Patients with one or two slides of 6 to 12 tiles; what class they are of shows in every second tile."""
    draw = np.random.default_rng(seed)
    rows = ["bag,patient,label"]
    for patient in range(patients):
        label = patient % classes
        for slide in range(1 + patient // classes % 2):
            features = draw.normal(size=(draw.integers(6, 13), F)).astype(np.float32)
            features[::2, label] += 4 * (label > 0)
            write_features(folder / "features" / f"s{patient}_{slide}.h5", features)
            rows.append(f"features/s{patient}_{slide}.h5,p{patient},{label}")
    (folder / "cohort.csv").write_text("\n".join(rows))
    return folder


def write_features(path, features, **attributes):
    """Features (N, F) with tiles of 64 pixels in rows of four."""
    coords = np.stack([np.arange(len(features)) % 4, np.arange(len(features)) // 4], axis=1) * 64
    record = {"unit": "px", "tile_size": 64.0, "spatial_shape": np.array([256, 192]), **attributes}
    write_bag(path, {"features": features, "coords": coords}, record)
    return path


def write_small_slide(path, color=(196, 120, 170), **options):
    """A slide of 320 x 256 pixels with 24 tiles of tissue."""
    return write_slide(path, stained((256, 320), (32, 32, 224, 160), color=color), tile=64, levels=2, **options)


def start(*configs, network="qgmil", kind="train", **override):
    """Make a workflow of wsi_mil, initialized; the overlay of ``network`` comes after the first of ``configs``."""
    first, *others = configs
    folder = BUNDLES / "wsi_mil" / "configs"
    files = [str(folder / f"{config}.yaml") for config in (first, *OVERLAYS[network], *others)]
    meta = str(folder / "metadata.json")
    workflow = ConfigWorkflow(files, meta_file=meta, workflow_type=kind, logging_file=False, **override)
    workflow.initialize()
    return workflow


def content(workflow, key):
    return workflow.parser.get_parsed_content(key)
