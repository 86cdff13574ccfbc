"""Tests of the network of instance_encoder with random weights: rules of the zoo, exports, features of one scan."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from monai.apps.utils import HashCheckError
from monai.bundle import (
    ConfigParser,
    ConfigWorkflow,
    ckpt_export,
    download_large_files,
    onnx_export,
    verify_net_in_out,
)

from monai_mil_ext.data import InstanceSource, read_bag
from monai_mil_ext.networks.encoders import MobileNetV2Features
from monai_mil_ext.utils.exceptions import root_cause
from tests.scans import write_series

BUNDLE = Path(__file__).parents[3] / "bundles" / "instance_encoder"
FILES = {"meta_file": "configs/metadata.json", "config_file": "configs/inference.yaml"}
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Under the names of the published file, with the classifier that it has."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    head = {"classifier.1.weight": torch.zeros(1000, 1280), "classifier.1.bias": torch.zeros(1000)}
    torch.save({**MobileNetV2Features().state_dict(), **head}, path)
    return path


@pytest.fixture
def hugging_face(tmp_path):
    """Overrides for a small DINOv2 in a folder."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "dino"
    transformers.Dinov2Model(transformers.Dinov2Config(**SIZES, mlp_ratio=1)).save_pretrained(folder)
    processor = {"size": {"height": 28, "width": 28}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return {"encoder_name": str(folder), "local_files_only": True, "spatial_size": 28}


@pytest.fixture
def net(checkpoint, monkeypatch):
    monkeypatch.chdir(BUNDLE)
    parser = ConfigParser(ConfigParser.load_config_file("configs/inference.yaml") | {"checkpoint": str(checkpoint)})
    return parser.get_parsed_content("network_def").eval()


def test_instance_encoder_inputs_and_outputs_match_the_metadata(net, checkpoint):
    verify_net_in_out("network_def", device="cpu", checkpoint=str(checkpoint), **FILES)


@pytest.mark.slow(buys="the encoder's TorchScript and ONNX files take any number of slices")
def test_instance_encoder_exports_with_any_number_of_slices(net, checkpoint, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.save(MobileNetV2Features().state_dict(), tmp_path / "other.pt")  # the exporter's file counts
    options = {**FILES, "ckpt_file": str(checkpoint), "checkpoint": str(tmp_path / "other.pt")}
    ckpt_export("network_def", filepath=str(tmp_path / "m.ts"), **options)
    names = {"input_names": ["slices"], "output_names": ["features"], "dynamic_axes": {"slices": {0: "instances"}}}
    file = str(tmp_path / "m.onnx")
    onnx_export("network_def", filepath=file, input_shape=[2, 1, 224, 224], converter_kwargs=names, **options)
    session, script = onnxruntime.InferenceSession(file), torch.jit.load(tmp_path / "m.ts")
    for n in (1, 5):
        slices = torch.rand(n, 1, 224, 224)
        expected = net(slices)
        assert expected.shape == (n, 2560)
        torch.testing.assert_close(script(slices), expected, rtol=1e-4, atol=1e-5)
        got = torch.from_numpy(session.run(None, {"slices": slices.numpy()})[0])
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def workflow(*configs, **override):
    made = ConfigWorkflow([f"configs/{c}.yaml" for c in configs], workflow_type="infer", logging_file=False, **override)
    made.initialize()
    return made


def one_and_cohort(digits, tmp_path, overlays, **options):
    """Return the contents of the feature files of a scan that inference.yaml and encode.yaml write."""
    shutil.copy(digits / "digits_2.nii.gz", tmp_path)
    scan = {"input": str(tmp_path / "digits_2.nii.gz"), "case_id": "c7", "output_dir": str(tmp_path / "out")}
    inference = workflow("inference", *overlays, **scan, **options, chunk_size=7)
    assert inference.check_properties() == []
    inference.run()
    cohort = {"scans": [{"case_id": "c7", "patient": "p", "image": "digits_2.nii.gz"}]}
    (tmp_path / "cohort.json").write_text(json.dumps(cohort))
    files = [f"configs/{name}.yaml" for name in ("encode", *overlays)]
    ConfigWorkflow(files, logging_file=False, dataset_dir=str(tmp_path), output_dir=str(tmp_path), **options).run()
    names = ["features", "position", "slice_index", "affine", "spatial_shape"]
    return [read_bag(next(tmp_path.glob(f"{place}/**/c7.h5")), names) for place in ("out", "features")]


def test_instance_encoder_inference_equals_encode_for_one_scan(checkpoint, digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(BUNDLE)
    options = {"checkpoint": str(checkpoint), "hu_window": [0, 16], "hounsfield": False, "spatial_size": 32}
    got, expected = one_and_cohort(digits, tmp_path, [], **options)
    assert "research use only" in capsys.readouterr().out
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert got["features"].shape == (40, 2560)
    record = read_bag(tmp_path / "out" / "c7.h5", ["encoder", "case_id"])
    assert record == {"encoder": "MobileNetV2-ImageNet", "case_id": "c7"}
    assert b"digits_2" not in (tmp_path / "out" / "c7.h5").read_bytes()
    one, of_cohort = (
        InstanceSource.from_bag(next(tmp_path.glob(f"{place}/**/c7.h5"))) for place in ("out", "features")
    )
    assert one == of_cohort
    assert (one.plane, one.window, one.spatial_size, one.lowest, one.highest) == ("axial", (0, 16), (32,), (0,), (16,))
    assert (one.spacing, one.modality, len(one.encoder_fingerprint)) == ((5, 5), (), 64)


def test_instance_encoder_hugging_face_replaces_the_network(hugging_face, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(BUNDLE)
    got, expected = one_and_cohort(
        digits, tmp_path, ["hugging_face"], hu_window=[0, 16], hounsfield=False, **hugging_face
    )
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    assert got["features"].shape == (40, 16)
    assert read_bag(tmp_path / "out" / "c7.h5", ["encoder"]) == {"encoder": "dino"}


def test_instance_encoder_refuses_a_model_name_without_its_config(monkeypatch):
    monkeypatch.chdir(BUNDLE)
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        workflow("encode", encoder_name="facebook/dinov2-base")
    assert re.match("`encoder_name` must be one of .* got 'encoder_name'", str(root_cause(error.value)))


def test_instance_encoder_names_missing_weights(monkeypatch, tmp_path):
    monkeypatch.chdir(BUNDLE)
    with pytest.raises(RuntimeError, match="Failed to instantiate") as error:
        workflow("inference", checkpoint=str(tmp_path / "model.pt")).parser.get_parsed_content("network")
    assert "model.pt'; the published one is https://download.pytorch.org" in str(root_cause(error.value))


def test_instance_encoder_inference_refuses_a_case_id_with_a_path(monkeypatch):
    monkeypatch.chdir(BUNDLE)
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        workflow("inference", case_id="../c7")
    assert "`case_id` must be letters, digits" in str(root_cause(error.value))


def test_instance_encoder_inference_chooses_a_series_and_a_stack_of_it(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(BUNDLE)
    for echo in (1, 2):
        write_series(tmp_path / f"echo{echo}", (6, 5, echo + 2), EchoNumbers=echo)
    write_series(tmp_path / "other", series=2)
    options = {"checkpoint": str(checkpoint), "spatial_size": 32, "series": 1}
    made = workflow("inference", input=str(tmp_path), case_id="c7", **options, stack="echo 2")
    assert made.parser.get_parsed_content("bag")["image"].shape == (4, 1, 32, 32)
    made = workflow("inference", input=str(tmp_path), case_id="c7", **options)
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        made.parser.get_parsed_content("bag")
    assert "Choose one by `stack`" in str(root_cause(error.value))


def test_instance_encoder_large_files_have_the_hash_of_the_weights(tmp_path):
    """Other weights in their place are refused; the right ones are in tests/bundles/test_demo_weights.py."""
    shutil.copy(BUNDLE / "large_files.yml", tmp_path)
    (entry,) = yaml.safe_load((tmp_path / "large_files.yml").read_text())["large_files"]
    assert (entry["path"], entry["hash_type"]) == ("models/model.pt", "sha256")
    assert entry["hash_val"][:8] == entry["url"].removesuffix(".pth").rpartition("-")[2]  # by torch.hub's custom
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").write_bytes(b"other weights")
    with pytest.raises(HashCheckError, match="hash check of existing file failed"):
        download_large_files(str(tmp_path))
