"""The network of instance_encoder, a DINOv2 of one layer in a folder: one scan's features, exports, what MONAI asks."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, onnx_export, verify_net_in_out

from monai_mil_ext.data import read_bag
from monai_mil_ext.utils import root_cause

BUNDLE = Path(__file__).parents[2] / "bundles" / "instance_encoder"
FILES = {"meta_file": "configs/metadata.json", "config_file": "configs/inference.yaml"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """As wide as DINOv2 base."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("encoder") / "dino"
    sizes = {"hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 12, "image_size": 224, "patch_size": 56}
    transformers.Dinov2Model(transformers.Dinov2Config(**sizes, mlp_ratio=1)).save_pretrained(folder)
    processor = {"size": {"height": 224, "width": 224}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return {"encoder_name": str(folder), "local_files_only": True}


@pytest.fixture
def net(model, monkeypatch, tmp_path):
    """The network, and where its weights are."""
    monkeypatch.chdir(BUNDLE)
    parser = ConfigParser(ConfigParser.load_config_file("configs/inference.yaml") | model)
    made = parser.get_parsed_content("network_def").eval()
    torch.save(made.state_dict(), tmp_path / "model.pt")
    return made


def test_it_takes_and_gives_what_the_metadata_says(net, model):
    verify_net_in_out("network_def", device="cpu", **FILES, **model)


def test_it_exports_to_torchscript_and_onnx_with_any_number_of_slices(net, model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = {**FILES, **model, "ckpt_file": str(tmp_path / "model.pt")}
    ckpt_export("network_def", filepath=str(tmp_path / "m.ts"), use_trace=True, input_shape=[2, 1, 224, 224], **options)
    names = {"input_names": ["slices"], "output_names": ["features"], "dynamic_axes": {"slices": {0: "instances"}}}
    file = str(tmp_path / "m.onnx")
    onnx_export("network_def", filepath=file, input_shape=[2, 1, 224, 224], converter_kwargs=names, **options)
    session, script = onnxruntime.InferenceSession(file), torch.jit.load(tmp_path / "m.ts")
    for n in (1, 5):
        slices = torch.rand(n, 1, 224, 224)
        expected = net(slices)
        assert expected.shape == (n, 768)
        torch.testing.assert_close(script(slices), expected, rtol=1e-4, atol=1e-5)
        got = torch.from_numpy(session.run(None, {"slices": slices.numpy()})[0])
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def workflow(*configs, **override):
    made = ConfigWorkflow([f"configs/{c}.yaml" for c in configs], workflow_type="infer", logging_file=False, **override)
    made.initialize()
    return made


def test_one_scan_gives_the_file_that_a_cohort_of_it_gives(model, digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(BUNDLE)
    shutil.copy(digits / "digits_2.nii.gz", tmp_path)
    scan = {"input": str(tmp_path / "digits_2.nii.gz"), "case_id": "c7", "output_dir": str(tmp_path / "out")}
    options = {**model, "hu_window": [0, 16]}
    one = workflow("inference", **scan, **options, chunk_size=7)
    assert one.check_properties() == []
    one.run()
    assert "research use only" in capsys.readouterr().out
    cohort = {"scans": [{"case_id": "c7", "patient": "p", "image": "digits_2.nii.gz"}]}
    (tmp_path / "cohort.json").write_text(json.dumps(cohort))
    ConfigWorkflow(
        "configs/encode.yaml", logging_file=False, dataset_dir=str(tmp_path), output_dir=str(tmp_path), **options
    ).run()
    names = ["features", "position", "slice_index", "affine", "spatial_shape"]
    got, expected = (read_bag(next(tmp_path.glob(f"{place}/**/c7.h5")), names) for place in ("out", "features"))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    assert read_bag(tmp_path / "out" / "c7.h5", ["encoder", "case_id"]) == {"encoder": "dino", "case_id": "c7"}
    assert b"digits_2" not in (tmp_path / "out" / "c7.h5").read_bytes()


def test_a_case_id_that_leads_elsewhere_is_refused(model, monkeypatch):
    monkeypatch.chdir(BUNDLE)
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        workflow("inference", case_id="../c7", **model)
    assert "`case_id` must be letters, digits" in str(root_cause(error.value))
