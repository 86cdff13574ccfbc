"""Sites with bags of their own, and the record of the model that they train together."""

from pathlib import Path

import numpy as np

from monai_mil_ext.apps.bundle import describe_network
from monai_mil_ext.data import InstanceSource, ModelRecord, write_bag
from monai_mil_ext.networks.nets import ABMIL, ASMIL, QGMIL, QGMILBlock
from tests.scans import write_series

BUNDLES = Path(__file__).parents[3] / "bundles"
F, HIDDEN = 8, 16
CLASSES = ["normal", "tumor"]
OPTIONS = {"anchor": 0.1, "learning_rate": 0.01, "num_folds": 4, "batch_size": 8}


def record(name="bag_classifier", net=None, encoder="uni_v1", **task):
    """What all sites agree on."""
    network = describe_network(ASMIL(F, 2, hidden_size=HIDDEN) if net is None else net)
    known = {"kind": "classification", "num_classes": 2, "class_names": CLASSES, **task}
    return ModelRecord(name, network=network, sources=[InstanceSource(encoder=encoder, width=F)], task=known)


def write_site(folder, seed=0, encoder="uni_v1", width=F, scale=1.0, number=40):
    """Bags of one site, whose scanner scales the features; the tumor shows in the first instance."""
    draw, rows = np.random.default_rng(seed), ["bag,patient,label"]
    for i in range(number):
        features = draw.normal(size=(draw.integers(3, 9), width)).astype(np.float32)
        features[0, 0] += 4 * (i % 2)
        write_bag(folder / f"b{i}.h5", {"features": scale * features}, {"encoder": encoder})
        rows.append(f"b{i}.h5,p{i},{CLASSES[i % 2]}")
    (folder / "cohort.csv").write_text("\n".join(rows))
    return folder


def settings(folder, bundle="bag_classifier", **more):
    """What the administrator of a site writes."""
    paths = {"dataset_dir": folder, "ckpt_dir": f"{folder}/models", "output_dir": f"{folder}/out"}
    return {"bundle": str(BUNDLES / bundle), **{name: str(path) for name, path in paths.items()}, **more}


def average(updates):
    """Mean of differences, as a server computes it, weighted by the steps."""
    total = sum(update.steps for update in updates)
    keys = updates[0].differences
    return {key: sum(u.differences[key] * (u.steps / total) for u in updates) for key in keys}


def bag_site(folder, seed=0, scale=1.0, number=40):
    """Job of bag_classifier, with settings of a site and options of the job."""
    write_site(folder, seed, scale=scale, number=number)
    return record(), settings(folder), OPTIONS


def slide_site(folder, seed=0, scale=1.0, number=16):
    """Job of wsi_mil."""
    write_site(folder, seed, scale=scale, number=number)
    net = QGMIL(F, 2, hidden_size=16, block=QGMILBlock(num_heads=2))
    return record("wsi_mil", net=net), settings(folder, "wsi_mil"), {"num_folds": 4, "batch_size": 8}


def scan_site(folder, *_args):
    """Job of scan_mil, for whole scans with labels."""
    for case in "abcdef":
        write_series(folder / case, (8, 8, 6), spacing=(1.0, 1.0, 2.5))
    scans = [{"case_id": c, "patient": c, "image": str(folder / c), "label": i % 2} for i, c in enumerate("abcdef")]
    own = {"overlays": ["scan_labels"], "scans": scans[:4], "held_out": scans[4:]}
    fill = "lambda m: [p.data.fill_(0.01) for p in m.parameters()] and None"
    own["encoder"] = f"$torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8)).apply({fill})"
    job = record("scan_mil", net=ABMIL(F, 2, hidden_size=16), encoder=None)
    return job, settings(folder, "scan_mil", **own), {"in_features": 8, "spatial_size": 8}


SITES = {"bag_classifier": bag_site, "wsi_mil": slide_site, "scan_mil": scan_site}
