"""Tests that examples in documentation run, against defect 3 of other MIL packages."""

import inspect
import pydoc
import re
from pathlib import Path

import pytest
import yaml
from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigComponent
from monai.networks.nets import MILModel
from torch import nn

import monai_mil_ext  # noqa: F401  as a bundle imports it
from tests.handlers.training import CLASSES, F, make_trainer, patch_batches

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("bundles/*/docs/*.md")]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def components(config):
    """Yield every dictionary with a ``_target_`` in a parsed YAML text."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield config
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from components(part)


@pages
def test_python_examples_of_pages_are_doctests_defect_03(page, pytestconfig):
    """Check that every block is a doctest on a page that pytest collects."""
    assert [block for block in blocks(page, "python") if not block.startswith(">>> ")] == []
    assert "*.md" in pytestconfig.getoption("doctestglob")
    collected = [path for pattern in pytestconfig.getini("testpaths") for path in ROOT.glob(pattern)]
    assert any(page == path or path in page.parents for path in collected)


@pages
def test_yaml_examples_of_pages_match_their_classes_defect_03(page):
    for block in blocks(page, "yaml"):
        for config in components(list(yaml.safe_load_all(block))):
            target = ConfigComponent(config).resolve_module_name()
            callee = pydoc.locate(target) if isinstance(target, str) else target
            arguments = {name: value for name, value in config.items() if not re.fullmatch("_.*_", name)}
            inspect.signature(callee).bind_partial(**arguments)


def test_attention_prior_handler_of_the_overview_trains_defect_03():
    (example,) = blocks(ROOT / "docs" / "overview.md", "yaml")
    config = yaml.safe_load(example)
    parser = ConfigParser({"imports": config["imports"], "handler": config["+train#handlers"][0]})
    parser.get_parsed_content("imports")
    network = MILModel(CLASSES, mil_mode="att", backbone=nn.Flatten(), backbone_num_features=F, pretrained=False)
    trainer = make_trainer(network, patch_batches(), parser.get_parsed_content("handler"))
    trainer.run()
    assert trainer.state.output[0]["attention_prior"] > 0
