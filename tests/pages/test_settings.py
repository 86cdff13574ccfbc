"""Settings shown in pages: components can be created, and overrides outside of the blocks that are run exist."""

import json
import re
import shlex

import pytest
import yaml
from monai.bundle import ConfigParser

from monai_mil_ext.data import load_cohort

from .runner import ROOT, blocks

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("bundles/*/docs/*.md"))]
PAGES += sorted(ROOT.glob("scripts/experiments/*/*.md"))
SHOWN = [(page, text) for page in PAGES for text in blocks(page, "yaml")]
KNOWN = {"imports": ["$import monai_mil_ext", "$import torch"], "tensorboard": {"_target_": "builtins.object"}}

CARDS = {page.parents[1]: page for page in PAGES if page.parent.name == "docs" and page.parents[1] != ROOT}
CARDS |= {page.parent: page for page in PAGES if (page.parent / "configs").is_dir()}
OPTIONS_OF_MONAI = {"--config_file", "--meta_file", "--args_file", "--logging_file", "--tracking", "--run_id"}


def keys(configs):
    """Return the top-level keys of configs, also without the part after ``#``."""
    names = {str(key).lstrip("+") for path in configs for key in ConfigParser.load_config_file(path)}
    return names | {name.split("#")[0] for name in names}


def unknown_options(text, configs):
    """Return the overrides of a command that none of its configs has; in a block, the run itself checks this."""
    options = {re.split("[#=]", word)[0] for word in shlex.split(text) if re.match("--[a-z]", word)}
    return {option for option in options - OPTIONS_OF_MONAI if option[2:] not in keys(configs)}


def components(content):
    """Return the outermost parts of a config that name a class."""
    if isinstance(content, dict) and "_target_" in content:
        return [content]
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list) else []
    return [config for part in parts for config in components(part)]


@pytest.mark.parametrize(("page", "text"), SHOWN, ids=[page.stem for page, _ in SHOWN])
def test_shown_components_can_be_created(page, text):
    (*_, content) = yaml.safe_load_all(text)
    if content.get("kind") in ("Job", "DaskCluster"):
        return
    configs = components(content)
    assert configs
    for config in configs:
        component = ConfigParser({**KNOWN, "component": config}).get_parsed_content("component")
        assert type(component).__name__ == config["_target_"].rpartition(".")[2]


def test_the_kubernetes_job_runs_the_slurm_command():
    (page,) = [page for page, text in SHOWN if "kind: Job" in text]
    (text,) = [text for text in blocks(page, "yaml") if "kind: Job" in text]
    (container,) = list(yaml.safe_load_all(text))[1]["spec"]["template"]["spec"]["containers"]
    (script,) = [block for block in blocks(page, "bash") if "srun" in block]
    job = " ".join([*container["command"], *container["args"]]).replace("=", " ")
    parts = re.compile(r"--[\w-]+|configs/\w+\.yaml|torchrun|monai\.bundle run")
    assert {*parts.findall(script.split("srun ")[1])} == {*parts.findall(job)}
    assert (ROOT / container["workingDir"].lstrip("/") / "configs/multi_gpu_train.yaml").exists()


def test_load_cohort_reads_the_shown_cohort(tmp_path):
    (text,) = blocks(ROOT / "docs" / "quickstart.md", "json")
    (scan,) = json.loads(text)["scans"]
    (tmp_path / "cohort.json").write_text(text)
    for key in ("image", "reference"):
        (tmp_path / scan[key]).touch()
    (item,) = load_cohort(tmp_path / "cohort.json")
    assert item == {**scan, "image": str(tmp_path / scan["image"]), "reference": str(tmp_path / scan["reference"])}


@pytest.mark.parametrize("folder", CARDS, ids=lambda folder: folder.name)
def test_overrides_named_in_a_model_card_are_in_a_config(folder):
    spans, configs = re.findall(r"`(--[^`]+)`", CARDS[folder].read_text()), [*folder.glob("configs/*.yaml")]
    assert set().union(*(unknown_options(span, configs) for span in spans)) == set()
    assert [span for span in spans if re.search(r" None\b", span)] == []  # MONAI drops it: it must be '$None'


def test_commands_in_sentences_override_keys_of_their_configs():
    for page in PAGES:
        for command in re.findall(r"`[^`\n]*monai\.bundle run ([^`\n]*)`", page.read_text()):
            names = re.findall(r"configs/\w+\.yaml", command)
            bundles = [path for path in CARDS if names and all((path / name).exists() for name in names)]
            assert any(unknown_options(command, [path / name for name in names]) == set() for path in bundles), command
