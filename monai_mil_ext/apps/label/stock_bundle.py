"""Copy of a bundle for the app ``monaibundle`` of MONAI Label.

``python -m monai_mil_ext.apps.label.stock_bundle BUNDLE TARGET``
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_mil_ext.data import ScoreBands

from .bundle_runner import SITE, BundleRunner

__all__ = ["write_stock_bundle"]

INFERER = "$lambda inputs, network: monai_mil_ext.networks.nets.BagOutputWrapper(network)(inputs)"
VIEW = "monai_mil_ext.apps.label.ScoresToLabelMapd"
COPIED = ("LICENSE", "docs", "scripts")
WEIGHTS = (".pt", ".pth", ".safetensors")  # endings of the encoder's, in data


def write_stock_bundle(bundle: BundleRunner, target: str | os.PathLike[str]) -> Path:
    """Copy a bundle of scans with an ``inference.json`` whose ``pred`` is a label map; the copy can't be trained.

    The weights of the model and of the encoder are copied, too.

    The app ``monaibundle`` runs preprocessing, network and postprocessing itself, expects a label map as ``pred`` and
    takes the labels from the metadata, so the config does what the app ``mil`` does around a bundle.

    Args:
        bundle: bundle with an ``inference`` config.
        target: new folder, ``APP/model/NAME``, without "classification" in its name.

    Raises:
        FileExistsError: when ``target`` exists.
    """
    folder = Path(target)
    (folder / "configs").mkdir(parents=True)
    for name in COPIED:
        source = bundle.root / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy(source, folder / name)
    for path in bundle.weights.parent.glob("*.*"):  # the app reads weights from models alone
        if path.is_file():
            (folder / "models").mkdir(exist_ok=True)
            shutil.copy(path, folder / "models")
    for path in sorted(bundle.root.glob("data/*")):  # scans, which may lie there too, stay where they are
        if path.suffix in WEIGHTS and path.is_file():
            (folder / "data").mkdir(exist_ok=True)
            shutil.copy(path, folder / "data")
    bands = ScoreBands()
    view = {"_target_": VIEW, "keys": "pred", "class_names": bundle.class_names, "top_k": list(bands.top_k)}
    config = _inference(bundle)
    view |= {"task": "@task"} if "task" in config else {}
    config["inferer"] = INFERER
    config["postprocessing"]["transforms"].append(view)
    ConfigParser.export_config_file(config, str(folder / "configs" / "inference.json"), indent=4)
    metadata = json.loads(json.dumps(bundle.metadata))
    image, pred = (next(iter(metadata["network_data_format"][side].values())) for side in ("inputs", "outputs"))
    image["spatial_shape"] = ["*", "*", "*"]  # clients send a volume
    pred["channel_def"] = {"0": "background", **{str(i): name for i, name in enumerate(bands.names, 1)}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata, indent=4) + "\n", "utf-8")
    return folder


def _inference(bundle: BundleRunner) -> dict[str, Any]:
    names = ["inference", *([SITE] if bundle.has(SITE) else [])]
    files = [str(bundle.root / "configs" / f"{name}.yaml") for name in names]
    parser = ConfigParser()
    parser.read_config(files)
    return {key: value for key, value in parser.config.items() if key != "_meta_"}


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    print(write_stock_bundle(BundleRunner(args.bundle), args.target))  # noqa: T201


if __name__ == "__main__":
    _main()
