"""Labels of scans, and what the app says where MONAI Label is not installed."""

import json
import subprocess
import sys

import pytest
import torch
from monai.utils import OptionalImportError

from monai_mil_ext.apps.label import BundleRunner, UncertaintyScoring
from monai_mil_ext.apps.label.active_learning import normalized_entropy
from monai_mil_ext.apps.label.bundle_runner import device_override
from monai_mil_ext.apps.label.scan_labels import is_labeled, label_of
from tests.bundles.wsi import BUNDLES

NAMES = ["no tumor", "Tumor"]


class Datastore:
    """As far as labels go, MONAI Label's."""

    def __init__(self, folder, info=None, final=None):
        self.info, self.file = info or {}, folder / "a.json"
        self.tags = {} if final is None else {"final": "a"}
        self.file.write_text(final or "")

    def get_image_info(self, image):
        return self.info

    def get_labels_by_image_id(self, image):
        return self.tags

    def get_label_uri(self, image, tag):
        return str(self.file)


@pytest.mark.parametrize(
    ("info", "final", "expected"),
    [
        ({}, None, None),
        ({"bag_label": 0}, None, 0),
        ({"bag_label": "tumor"}, None, 1),
        ({}, json.dumps({"bag_label": "No Tumour"}), 0),
        ({"bag_label": 1}, json.dumps({"bag_label": 0}), 1),
        ({}, json.dumps({"other": 0}), None),
        ({}, "no JSON", None),
        ({}, "[1]", None),
    ],
)
def test_label_of_prefers_the_info_to_the_file(tmp_path, info, final, expected):
    store = Datastore(tmp_path, info, final)
    assert label_of(store, "a", NAMES) == expected
    assert is_labeled(store, "a") == (expected is not None or final is not None)


@pytest.mark.parametrize("wrong", [2, -1, True, "cancer", 0.5, [1]])
def test_label_of_names_a_label_that_is_no_class(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"`bag_label` must be a class number below 2 or a name of .*, got"):
        label_of(Datastore(tmp_path, {"bag_label": wrong}), "a", NAMES)


def test_is_labeled_counts_a_mask_and_label_of_does_not(tmp_path):
    store = Datastore(tmp_path, final="x")
    store.file = tmp_path / "a.nii.gz"
    assert label_of(store, "a", NAMES) is None
    assert is_labeled(store, "a")


def test_normalized_entropy_equals_its_definition():
    p = torch.tensor([0.1, 0.2, 0.7])
    expected = torch.distributions.Categorical(p).entropy() / torch.log(torch.tensor(3.0))
    assert normalized_entropy(p.tolist()) == pytest.approx(float(expected), abs=1e-6)


def test_device_override_ignores_a_missing_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_override({"device": "cuda:1"}) == {}
    assert device_override({"device": ["cpu"]}) == {"device": "cpu"}


def test_bundle_runner_knows_the_kind_and_the_classes_of_a_bundle():
    scans, slides = (BundleRunner(BUNDLES / name) for name in ("scan_mil", "wsi_mil"))
    assert (scans.reads_slides, slides.reads_slides) == (False, True)
    assert scans.class_names == ["no tumor", "tumor"]
    assert scans.has("train", "scan_labels")
    assert not slides.has("scan_labels")


def test_label_app_needs_monailabel_and_the_package_does_not():
    with pytest.raises(OptionalImportError, match="monailabel"):
        UncertaintyScoring(lambda request: {}, "a")
    code = "import sys, monai_mil_ext; print('monai_mil_ext.apps.label' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
