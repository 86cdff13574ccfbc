"""What other packages get wrong around the networks, by the numbers of the survey: 3 examples, 12 rates, 16 export."""

import inspect
import pydoc
import re

import onnxruntime
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, onnx_export
from monai.bundle.config_item import ConfigComponent
from monai.networks.nets import MILModel
from torch import nn

import monai_mil_ext  # noqa: F401  what a bundle imports
from tests.bundles.conftest import BUNDLE, _scripts, digits, start  # noqa: F401
from tests.contracts.full_laws import agree, run
from tests.handlers.training import CLASSES, F, make_trainer, patch_batches
from tests.helpers import fill
from tests.test_docs import PAGES, ROOT

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def components(config):
    """Every dictionary with a ``_target_`` in a parsed YAML text."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield config
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from components(part)


@pages
def test_defect_03_an_example_in_python_does_not_run(page, pytestconfig):
    """Every block is a doctest, and pytest collects the page."""
    assert [block for block in blocks(page, "python") if not block.startswith(">>> ")] == []
    assert "*.md" in pytestconfig.getoption("doctestglob")
    places = [place for pattern in pytestconfig.getini("testpaths") for place in ROOT.glob(pattern)]
    assert any(page == place or place in page.parents for place in places)


@pages
def test_defect_03_an_example_in_yaml_does_not_match_its_class(page):
    for block in blocks(page, "yaml"):
        for config in components(list(yaml.safe_load_all(block))):
            target = ConfigComponent(config).resolve_module_name()
            callee = pydoc.locate(target) if isinstance(target, str) else target
            arguments = {name: value for name, value in config.items() if not re.fullmatch("_.*_", name)}
            inspect.signature(callee).bind_partial(**arguments)


def test_defect_03_the_example_of_the_readme_does_not_train():
    (example,) = blocks(ROOT / "README.md", "yaml")
    config = yaml.safe_load(example)
    parser = ConfigParser({"imports": config["imports"], "handler": config["+train#handlers"][0]})
    parser.get_parsed_content("imports")
    network = MILModel(CLASSES, mil_mode="att", backbone=nn.Flatten(), backbone_num_features=F, pretrained=False)
    trainer = make_trainer(network, patch_batches(), parser.get_parsed_content("handler"))
    trainer.run()
    assert trainer.state.output[0]["attention_prior"] > 0


def test_defect_12_another_learning_rate_than_the_configured_one(start, digits, tmp_path):  # noqa: F811
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folders = {"dataset_dir": str(digits), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
    workflow, rates = start("train", "digits", **folders, epochs=2, learning_rate=0.0007), []
    optimizer = workflow.parser.get_parsed_content("optimizer")
    optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
    workflow.run()
    workflow.finalize()
    steps = len(rates) // 2
    assert rates == pytest.approx([0.0007] * steps + [0.00035] * steps)  # half way down the cosine
    log = EventAccumulator(str(tmp_path))
    log.Reload()
    logged = [(event.step, event.value) for event in log.Scalars("learning_rate")]
    assert logged == [(0, pytest.approx(0.0007)), (steps, pytest.approx(0.00035))]


@pytest.mark.slow
def test_defect_16_a_bundle_exports_for_one_bag_size(tmp_path):
    config = ConfigParser.load_config_file(BUNDLE / "configs" / "train.yaml")
    features = config["in_features"]
    net = fill(
        ConfigParser({key: config[key] for key in ("in_features", "network_def")}).get_parsed_content("network_def")
    )
    torch.save(net.state_dict(), tmp_path / "model.pt")
    axes = {"bag": {0: "batch", 1: "instances"}}
    onnx_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.onnx"),
        ckpt_file=str(tmp_path / "model.pt"),
        config_file=str(BUNDLE / "configs" / "train.yaml"),
        input_shape=[2, 5, features],
        converter_kwargs={"input_names": ["bag"], "output_names": ["logits"], "dynamic_axes": axes},
    )
    runtime = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for shape in ((1, 1), (3, 9)):
        bags = torch.randn(*shape, features)
        agree(run(runtime, bag=bags), net(bags))
