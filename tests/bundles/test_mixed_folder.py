"""A run over a folder of everything that hospitals and scanners write does not stop, and its table states all of it."""

import csv
import re

import pytest
import torch

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.networks.nets import ABMIL
from tests.bundles import wsi
from tests.bundles.mixed_folder import SCANS, SLIDES, write_mixed_folder
from tests.scans import SECRETS
from tests.workflows import causes

MEAN = "$torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_mixed_folder(tmp_path_factory.mktemp("Secretname") / "mixed")


@pytest.fixture
def model(tmp_path):
    """Options of a model of ``width`` features, and a function that runs a workflow and returns its table."""

    def make(width):
        torch.manual_seed(0)
        task = {"kind": "classification", "num_classes": 2, "activation": "softmax"}
        save_model(tmp_path / "model", ABMIL(width, 2), task=task)
        paths = {"ckpt_dir": str(tmp_path / "model"), "output_dir": str(tmp_path / "out")}
        return {**paths, "in_features": width, "pictures": []}

    return make


def table_of(workflow, out, folder):
    """Run a workflow, in which some cases fail, and return the rows of its table by case."""
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        workflow.run()
    assert "must get a prediction, got none for" in causes(error.value)
    texts = [path.read_bytes().decode("latin-1") for path in out.rglob("*") if path.is_file()]
    assert [word for word in (*SECRETS.values(), "Secretname", str(folder)) for text in texts if word in text] == []
    with (out / "results.csv").open() as file:
        return {row["case_id"]: row for row in csv.DictReader(file)}


def case_of(name, rows):
    """Return the row of an input: its case ID is the name without suffix, or with it if two have the same."""
    stems = [name, *(name[:i] for i, letter in enumerate(name) if letter == ".")]
    return next(rows[stem] for stem in stems[::-1] if stem in rows)


def faults(name, expected, row):
    """Return what a row of the table states otherwise than expected."""
    patterns = {"status": expected.status, "container": expected.container, "notes": expected.notes}
    patterns["option"] = f"^try {expected.option}" if expected.option else "^$"
    if row["status"] == "done":
        patterns["shape"] = r"^\d+( x \d+){1,2}$" if not name.endswith(".h5") else ""
        patterns["spacing"] = r"^[\d.]+( x [\d.]+){1,2} (mm|um)$"
    return [f"{name}: {key} {row[key]!r}" for key, pattern in patterns.items() if not re.search(pattern, row[key])]


def test_scans_of_a_mixed_folder(start, folder, model, tmp_path):
    options = {"cohort": str(folder), "encoder": MEAN, "spatial_size": 8, **model(1)}
    rows = table_of(start("inference", "cohort_inference", **options), tmp_path / "out", folder)
    assert [fault for name, case in SCANS.items() for fault in faults(name, case, case_of(name, rows))] == []
    assert len(rows) == len(SCANS) + 1  # a slide in DICOM is a folder too
    assert "no PixelSpacing" in rows["dicom_slide"]["status"]
    assert "<td>" in (tmp_path / "out" / "index.html").read_text()


def test_slides_of_a_mixed_folder(folder, model, tmp_path):
    options = {"input": str(folder), **wsi.ENCODER, **model(12)}
    workflow = wsi.start("inference", "slides", kind="infer", **options)
    rows = table_of(workflow, tmp_path / "out", folder)
    (dicom,) = [case for case in rows if case.startswith("slide_")]
    rows["dicom_slide"] = rows.pop(dicom)
    assert [fault for name, case in SLIDES.items() for fault in faults(name, case, case_of(name, rows))] == []
    assert len(rows) == len(SLIDES)
