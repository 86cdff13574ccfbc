"""Runs of feature extraction that log which process computed which case."""

import os
import signal
from pathlib import Path

import torch

from monai_mil_ext.data import FeatureCache, FeatureExtraction


class Encode:
    """Transform of a number to features, which logs process and case and fails on request."""

    def __init__(self, log, error=None, kill=None):
        self.log, self.error, self.kill = log, error, kill

    def __call__(self, item):
        rank = os.environ.get("RANK", "0")
        if item["case_id"] == self.kill and not Path(self.log, "killed").exists():
            Path(self.log, "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.error and item["case_id"] == "bad":
            raise self.error
        Path(self.log, f"{item['case_id']}-{rank}-{os.getpid()}").touch()
        return {"image": torch.full((3, 2), float(item["value"])), "case_id": item["case_id"]}


def scans(n, *more):
    names = [f"c{i}" for i in range(n)]
    return [{"case_id": name, "patient": f"p{i}", "label": i % 2, "value": i} for i, name in enumerate([*names, *more])]


def make_run(folder, on_error="skip", **options):
    (folder / "log").mkdir(exist_ok=True)
    cache = FeatureCache(
        folder / "features", Encode(str(folder / "log"), **options), fingerprint="f" * 64, attributes={"encoder": "net"}
    )
    return FeatureExtraction(cache, folder / "out", on_error, progress=False)


def made(folder):
    """Return the pairs of case and process from the log."""
    return sorted(tuple(path.name.split("-")[:2]) for path in (folder / "log").iterdir() if "-" in path.name)
