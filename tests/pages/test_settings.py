"""Settings shown in pages: their components can be created, and the Kubernetes job runs Slurm's command."""

import json
import re

import pytest
import yaml
from monai.bundle import ConfigParser

from monai_mil_ext.data import load_cohort

from .runner import ROOT, blocks

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("bundles/*/docs/*.md"))]
PAGES += sorted(ROOT.glob("scripts/experiments/*/*.md"))
SHOWN = [(page, text) for page in PAGES for text in blocks(page, "yaml")]
KNOWN = {"imports": ["$import monai_mil_ext", "$import torch"], "tensorboard": {"_target_": "builtins.object"}}


def components(content):
    """Return the outermost parts of a config that name a class."""
    if isinstance(content, dict) and "_target_" in content:
        return [content]
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list) else []
    return [config for part in parts for config in components(part)]


@pytest.mark.parametrize(("page", "text"), SHOWN, ids=[page.stem for page, _ in SHOWN])
def test_shown_components_can_be_created(page, text):
    (*_, content) = yaml.safe_load_all(text)
    if content.get("kind") == "Job":
        return
    configs = components(content)
    assert configs
    for config in configs:
        component = ConfigParser({**KNOWN, "component": config}).get_parsed_content("component")
        assert type(component).__name__ == config["_target_"].rpartition(".")[2]


def test_the_kubernetes_job_runs_the_slurm_command():
    (page,) = [page for page, text in SHOWN if "kind: Job" in text]
    (text,) = blocks(page, "yaml")
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
