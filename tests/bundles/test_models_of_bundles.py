"""Tests of the model that a bundle uses: as cloned the shipped one, after a training that of the training."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ckpt_export

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.apps.bundle_files import copy_bundle
from monai_mil_ext.networks.nets import ABMIL
from tests.bundles.small_bags import bags, scripts
from tests.workflows import ROOT, configs_of, content, open_workflow

SHIPPED = ["bag_classifier", "scan_mil", "wsi_mil"]
GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")
EXPORT = {"net_id": "network_def", "config_file": "configs/inference.yaml", "meta_file": "configs/metadata.json"}


@pytest.fixture
def enter(tmp_path, monkeypatch):
    """Copy a bundle as a user does, and go there."""

    def make(name):
        monkeypatch.chdir(copy_bundle(name, tmp_path / "bundles"))

    return make


def git(*words):
    return subprocess.run([*GIT, *words], check=True, capture_output=True, text=True).stdout


def folder_of(config):
    """Return the folder of the model of a config."""
    return ConfigParser(ConfigParser.load_config_file(f"configs/{config}.yaml")).get_parsed_content("ckpt_dir")


@pytest.mark.parametrize("name", SHIPPED)
def test_inference_uses_the_model_of_the_training(name, enter):
    enter(name)
    assert (folder_of("inference"), Path(folder_of("train")).parent) == ("models", Path("models"))
    save_model(folder_of("train"), ABMIL(4, 2))
    assert folder_of("inference") == Path(folder_of("train")).as_posix()


@pytest.mark.parametrize("name", SHIPPED)
def test_an_export_has_the_weights_of_the_model_that_is_used(name, enter):
    enter(name)
    net = ABMIL(4, 2)
    save_model("models/trained", net)
    with pytest.raises(ValueError, match="`ckpt_dir` must be the folder of the weights to load, got models/trained"):
        ckpt_export(filepath="m.ts", ckpt_file="models/model.pt", **EXPORT)
    ckpt_export(filepath="m.ts", ckpt_file="models/trained/model.pt", **EXPORT)
    bag = torch.rand(1, 3, 4)
    torch.testing.assert_close(torch.jit.load("m.ts")(bag), net.eval()(bag))


def test_a_clone_stays_clean_and_its_training_is_used(enter, tmp_path, capsys):
    shutil.copy(ROOT / ".gitignore", tmp_path)
    enter("bag_classifier")
    git("init", "-q", str(tmp_path))
    git("-C", str(tmp_path), "add", ".")
    git("commit", "-qm", "clone")
    shipped = Path("models/model.pt").read_bytes()
    scripts("prepare").write_cohort(bags(20, features=64), Path("data/digits/cohort.csv"))
    with pytest.warns(UserWarning, match="come with the bundle, trained on handwritten digits"):
        open_workflow(*configs_of("inference"), kind="infer").run()
    assert "model: models/model.pt (trained 20" in capsys.readouterr().out
    open_workflow(*configs_of("train"), epochs=1, num_folds=4, fold=2).run()
    workflow = open_workflow(*configs_of("inference"), kind="infer")
    workflow.run()
    assert "model: models/fold_2/model.pt (trained 20" in capsys.readouterr().out
    used = content(workflow, "network").state_dict()
    own = torch.load("models/fold_2/model.pt", weights_only=True)
    assert all(torch.equal(used[key], value) for key, value in own.items())
    assert git("status", "--porcelain", "--untracked-files=all") == ""
    assert Path("models/model.pt").read_bytes() == shipped


@pytest.mark.parametrize("name", SHIPPED)
def test_what_a_training_writes_is_ignored_by_git(name):
    written = [f"bundles/{name}/{file}" for file in ("models/trained/model.pt", "models/fold_0/model.json", "eval/a")]
    command = ["git", "check-ignore", *written]
    assert subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout.split() == written
