"""Tests of the model zoo's rules for every folder of bundles/: files, metadata, ids, properties and exports."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, onnx_export, verify_metadata, verify_net_in_out

from tests.bundles.small_bags import bags, scripts

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "tests" / "bundles" / "schema.json"
BUNDLES = sorted(path.parents[1] for path in ROOT.glob("bundles/*/configs/metadata.json"))
# What a bundle has not, and why; a bundle that is not named here has everything.
EXEMPT = {
    "instance_encoder": {"train": "its encoder stays as it is"},
}
CONSTRAINTS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line and line[0] != "#"
)
IDS = json.loads((ROOT / "tests" / "bundles" / "zoo_ids.json").read_text())  # what the zoo asks for, by where
LIMIT = 25 * 2**20  # bytes of a file of the zoo

every_bundle = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)


def having(part):
    """All bundles that are not exempt from a rule."""
    kept = [bundle for bundle in BUNDLES if part not in EXEMPT.get(bundle.name, {})]
    return pytest.mark.parametrize("bundle", kept, ids=lambda path: path.name)


def metadata(bundle):
    return json.loads((bundle / "configs" / "metadata.json").read_text())


def shipped(bundle):
    """Files that are part of a bundle: no data, no output, no weights of one's own."""
    own = [path for name in ("configs", "docs", "scripts") for path in (bundle / name).rglob("*") if path.is_file()]
    return [path for path in own if "__pycache__" not in path.parts] + [bundle / "LICENSE"]


def is_tracked(path):
    """Return whether .gitignore lets a file of weights be part of the repository."""
    return f"!{path.relative_to(ROOT)}" in (ROOT / ".gitignore").read_text().split()


def main_config(bundle):
    """The config that tools read first."""
    return f"configs/{'train' if 'inference' in EXEMPT.get(bundle.name, {}) else 'inference'}.yaml"


def test_bundle_exemptions_are_needed():
    assert {"bag_classifier", "scan_mil", "instance_encoder"} <= {b.name for b in BUNDLES}
    for name, parts in EXEMPT.items():
        for part in set(parts) - {"weights"}:
            assert not (ROOT / "bundles" / name / "configs" / f"{part}.yaml").exists(), (name, part)


@every_bundle
def test_bundle_has_the_files_of_the_zoo(bundle):
    assert "Apache License" in (bundle / "LICENSE").read_text()
    card = (bundle / "docs" / "README.md").read_text()
    headings = re.findall(r"^## (.+)$", re.sub(r"^```.*?^```", "", card, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    wanted = [
        name for name in IDS["card"] if name != "Training configuration" or (bundle / "configs/train.yaml").exists()
    ]
    assert card.startswith("# ")
    assert [name for name in headings if name in wanted] == wanted
    assert "Research use only" in (bundle / "docs" / "README.md").read_text()
    assert (bundle / "docs" / "data_license.txt").read_text().strip()
    assert "[loggers]" in (bundle / "configs" / "logging.conf").read_text()
    weights = bundle / "models" / "model.pt"
    tracked = [weights] if is_tracked(weights) else []
    assert [path.name for path in shipped(bundle) + tracked if path.stat().st_size > LIMIT] == []


@every_bundle
def test_bundle_readme_makes_sense_alone(bundle):
    """A copy of the bundle has no other folder of the repository."""
    text = (bundle / "docs" / "README.md").read_text()
    targets = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    inside = [(bundle / "docs" / target).resolve().is_relative_to(bundle) for target in targets]
    assert [target for target, is_inside in zip(targets, inside, strict=True) if not is_inside] == []
    assert [line for line in text.splitlines() if "../" in line] == []  # nor do commands leave it
    pages = set(re.findall(r"docs/[\w/-]+\.md", text)) - {"docs/README.md"}
    assert [page for page in pages if not (ROOT / page).is_file()] == []


@every_bundle
def test_bundle_metadata_is_complete(bundle):
    verify_metadata(str(bundle / "configs" / "metadata.json"), str(SCHEMA))
    text, result = (bundle / "configs" / "metadata.json").read_text(), metadata(bundle)
    assert text == json.dumps(result, indent=4, ensure_ascii=False) + "\n"  # as the zoo formats it
    assert [key for key in IDS["metadata"] if key not in result] == []
    assert result["version"] in result["changelog"]
    assert "esearch use only" in result["intended_use"]
    tensors = [t for side in ("inputs", "outputs") for t in result["network_data_format"][side].values()]
    assert [sorted(set(IDS["tensor"]) - set(tensor)) for tensor in tensors] == [[]] * len(tensors)
    assert {"image"} <= set(result["network_data_format"]["inputs"])
    assert {"pred"} <= set(result["network_data_format"]["outputs"])


@every_bundle
def test_bundle_metadata_has_the_tested_versions(bundle):
    result = metadata(bundle)
    named = {f"{key}_version": value for key, value in result["required_packages_version"].items()}
    named |= {f"{name}_version": result[f"{name}_version"] for name in ("monai", "numpy")}
    named["torch_version"] = result["pytorch_version"]
    own = named.pop("monai-mil-ext_version")
    assert own == __import__("monai_mil_ext").__version__
    assert {k: v for k, v in named.items() if CONSTRAINTS.get(k.removesuffix("_version")) != v} == {}


@every_bundle
def test_bundle_configs_parse_and_need_no_other_bundle(bundle):
    for path in sorted((bundle / "configs").glob("*.yaml")):
        content = ConfigParser.load_config_file(path)
        assert all(isinstance(key, str) for key in content), path.name  # `on`, `off` and `yes` are not
        assert path.read_text().startswith("# "), path.name
        assert "../" not in yaml.safe_dump(content), path.name
        assert "%" not in {str(value)[:1] for value in content.values()}, path.name


@every_bundle
def test_bundle_configs_address_nothing_by_position(bundle):
    numbered = [
        f"{path.name}: {match}"
        for path in sorted((bundle / "configs").glob("*.yaml"))
        for match in re.findall(r"[\w#]+#\d+\b", path.read_text())
    ]
    assert numbered == []


def test_bundle_configs_are_all_different():
    paths = sorted(path for path in ROOT.glob("bundles/*/configs/*") if path.is_file())
    contents = [path.read_bytes() for path in paths]
    assert [str(path) for path, content in zip(paths, contents, strict=True) if contents.count(content) > 1] == []


@having("train")
def test_bundle_train_has_the_usual_ids(bundle):
    parser = ConfigParser(ConfigParser.load_config_file(bundle / "configs" / "train.yaml"))
    assert [name for name in IDS["train"] if name not in parser] == []
    # MONAI's tools add handlers to these lists
    assert isinstance(parser["train"]["handlers"], list)
    assert isinstance(parser["validate"]["handlers"], list)
    assert "@train#handlers" in parser["train"]["trainer"]["train_handlers"]
    assert "@validate#handlers" in parser["validate"]["evaluator"]["val_handlers"]
    # where batches are not taken apart, MONAI's handlers of `--tracking mlflow` find a tuple in place of the loss
    assert bundle.name in EXEMPT or parser["train"]["trainer"].get("decollate", True)
    handlers = [*parser["train"].get("named_handlers", {}).values(), *parser["train"]["handlers"]]
    assert [h["interval"] for h in handlers if h["_target_"] == "ValidationHandler"] == ["@val_interval"]


@having("inference")
def test_bundle_inference_is_complete_and_agrees_with_train(bundle):
    other = "encode" if "train" in EXEMPT.get(bundle.name, {}) else "train"
    alone, trained = (
        ConfigParser.load_config_file(bundle / "configs" / f"{name}.yaml") for name in ("inference", other)
    )
    parser = ConfigParser(alone)
    assert [name for name in IDS["inference"] if name not in parser] == []
    alone["network_def"] = alone.get("unrecorded_network", alone["network_def"])
    if "trained" in alone:  # options of weights without a record
        parser["ckpt_dir"] = "absent"
        options = {"hu_window", "normalization", "pixel_mm", "fill_nan", "plane", "spatial_size", "in_features"}
        options &= alone.keys() & trained.keys()
        alone |= {name: parser.get_parsed_content(name) for name in options}
    shared = (
        "network_def",
        "prepare_batch",
        "encoder",
        "hu_window",
        "normalization",
        "pixel_mm",
        "fill_nan",
        "plane",
        "spatial_size",
    )
    assert {key for key in shared if key in alone and alone[key] != trained.get(key)} == set()
    if other == "train":
        steps = alone.get("process_output", alone["postprocessing"])["transforms"]
        steps = [{key: value for key, value in step.items() if key != "task"} for step in steps]  # of the record
        assert [step for step in trained["validate"]["postprocessing"]["transforms"] if step not in steps] == []


@pytest.fixture(scope="module")
def world(tmp_path_factory, digits):
    """Overlays and overrides of each bundle that name its data and the files of its training."""
    folder = tmp_path_factory.mktemp("zoo")
    scripts("prepare").write_cohort(bags(), folder / "cohort.csv")
    torch.save({}, folder / "model.pt")
    outputs = {"ckpt_dir": str(folder), "output_dir": str(folder / "out")}
    table = ([], {"dataset_dir": str(folder), **outputs})
    scans = (["digits"], {"dataset_dir": str(digits), **outputs})
    scan = {"input": str(digits / "digits_1.nii.gz"), "output_dir": str(folder / "out")}
    return {"scan_mil": scans, "instance_encoder": (["digits"], scan)}, table


@every_bundle
@pytest.mark.parametrize(
    ("configs", "kind"), [("train", "train"), ("train evaluate", "train"), ("inference", "infer")], ids=str
)
def test_bundle_has_the_properties_of_monai(bundle, configs, kind, monkeypatch, world):
    if configs.split()[0] in EXEMPT.get(bundle.name, {}):
        return
    monkeypatch.chdir(bundle)
    overlays, overrides = world[0].get(bundle.name, world[1])
    files = [f"configs/{name}.yaml" for name in (*configs.split(), *overlays)]
    workflow = ConfigWorkflow(files, workflow_type=kind, logging_file=False, **overrides)
    workflow.initialize()
    assert workflow.check_properties() == []


@having("train")
def test_bundle_network_matches_the_metadata(bundle, monkeypatch):
    monkeypatch.chdir(bundle)
    for name in {main_config(bundle), "configs/train.yaml"} if not needs_data(bundle) else {main_config(bundle)}:
        verify_net_in_out("network_def", meta_file="configs/metadata.json", config_file=name, device="cpu")


def needs_data(bundle):
    """Return whether training takes the width of its features from them."""
    return str(ConfigParser.load_config_file(bundle / "configs" / "train.yaml").get("in_features", "")).startswith("$")


@pytest.fixture
def exported(monkeypatch, tmp_path):
    """A bundle's network with its weights, or some, in a checkpoint of its own, and how to name that to an exporter."""

    def make(bundle):
        monkeypatch.chdir(bundle)
        parser = ConfigParser(ConfigParser.load_config_file(main_config(bundle)))
        net = parser.get_parsed_content("network_def").eval()
        own = Path("models/model.pt").resolve()
        if is_tracked(own):
            net.load_state_dict(torch.load(own, map_location="cpu", weights_only=True))
        torch.save(net.state_dict(), tmp_path / "model.pt")
        width = metadata(bundle)["network_data_format"]["inputs"]["image"]["spatial_shape"]
        files = {"meta_file": "configs/metadata.json", "config_file": main_config(bundle)}
        return net, [torch.rand(1, n, *width) for n in (7, 23)], {**files, "ckpt_file": str(tmp_path / "model.pt")}

    return make


@having("train")
def test_bundle_exports_to_torchscript(bundle, exported, tmp_path):
    net, bags, files = exported(bundle)
    ckpt_export("network_def", filepath=str(tmp_path / "model.ts"), **files)
    loaded = torch.jit.load(tmp_path / "model.ts")
    for bag in bags:
        torch.testing.assert_close(loaded(bag), net(bag), rtol=1e-5, atol=1e-6)


@pytest.mark.slow(buys="each bundle's ONNX file takes bags of any size")
@having("train")
def test_bundle_exports_to_onnx_with_bags_of_any_size(bundle, exported, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    net, bags, files = exported(bundle)
    names = {"input_names": ["bag"], "output_names": ["logits"], "dynamic_axes": {"bag": {0: "batch", 1: "instances"}}}
    shape = [2, 5, *bags[0].shape[2:]]
    onnx_export("network_def", filepath=str(tmp_path / "m.onnx"), input_shape=shape, converter_kwargs=names, **files)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    for bag in bags:
        got = torch.from_numpy(session.run(None, {"bag": bag.numpy()})[0])
        torch.testing.assert_close(got, net(bag), rtol=1e-4, atol=1e-5)


@every_bundle
def test_bundle_weights_exist_or_the_card_names_their_command(bundle):
    if "weights" in EXEMPT.get(bundle.name, {}):
        return
    card = (bundle / "docs" / "README.md").read_text()
    if is_tracked(bundle / "models" / "model.pt"):
        weights = torch.load(bundle / "models" / "model.pt", map_location="cpu", weights_only=True)
        assert all(torch.is_tensor(value) and value.isfinite().all() for value in weights.values())
    else:
        assert "not shipped" in card
        large = [
            entry["path"]
            for file in bundle.glob("large_files.yml")
            for entry in yaml.safe_load(file.read_text())["large_files"]
        ]
        assert large in ([], ["models/model.pt"])
    assert f"scripts/train_demo_weights {bundle.name}" in card
