"""Tests of multi_gpu_train.yaml: two processes equal one with the bags of both, and resume after a kill."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from tests.bundles.multi_gpu_runs import NO_GPU, train, work
from tests.bundles.scripts_of import BUNDLES
from tests.bundles.small_bags import bags, scripts
from tests.bundles.wsi import SMALL, write_cohort

BACKENDS = [  # the bundles choose by what they see
    "gloo",
    pytest.param(
        "nccl",
        marks=[pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")],
    ),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory, digits):
    """Forty bags and their table; four scans; slides of 18 patients."""
    folder = tmp_path_factory.mktemp("bags")
    scripts("prepare").write_cohort(bags(), folder / "cohort.csv")
    slides = write_cohort(tmp_path_factory.mktemp("slides"))
    return {"bag_classifier": str(folder), "scan_mil": str(digits), "wsi_mil": str(slides)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "case",
    [
        pytest.param("equal", marks=pytest.mark.slow(buys="gradients of two processes equal those of one")),
        "unequal",
        "slides",
        "slices",
    ],
)
def test_multi_gpu_train_equals_one_process_with_the_bags_of_both(case, backend, data, tmp_path, monkeypatch):
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.bundles.multi_gpu_runs"])
    torch.multiprocessing.start_processes(work, (str(tmp_path), case, data, backend), 2, start_method="forkserver")
    monkeypatch.chdir(tmp_path)  # and so, after it, back to where it was
    monkeypatch.setattr(sys, "path", list(sys.path))
    alone = {"device": "$torch.device('cpu')"} if backend == "gloo" else {}
    train(case, data, str(tmp_path / "single"), multi=False, **alone)
    first, second, single = (
        torch.load(tmp_path / f"{name}.pt", "cpu", weights_only=True) for name in ("0", "1", "single")
    )
    assert len(single["losses"]) >= 20
    assert_close((first["losses"] + second["losses"]) / 2, single["losses"], rtol=0, atol=1e-5)
    assert_close(first["net"], second["net"], rtol=0, atol=0)
    assert_close(first["anchor"], second["anchor"], rtol=0, atol=0)
    assert first["metrics"] == second["metrics"]  # of all bags, not of a process's own
    # the softmax ignores this bias, so that its gradient is rounding alone
    several, one = ({k: v for k, v in run["net"].items() if k != "attend.score.bias"} for run in (first, single))
    assert_close(several, one, rtol=0, atol=1e-5 if single["anchor"] else 1e-4)
    assert_close(first["anchor"], single["anchor"], rtol=0, atol=1e-5)
    assert_close(first["metrics"], single["metrics"], rtol=0, atol=1e-6)
    weights = torch.load(tmp_path / "0" / "model" / "model.pt", weights_only=True)
    assert weights.keys() == single["net"].keys()  # without the wrapper's prefix: evaluation and inference load it
    assert not (tmp_path / "1").exists()  # the second process writes nothing


KILLED = {  # configs, epochs, overrides
    "scan_mil": (["train", "multi_gpu_train", "digits"], 12, {}),
    "wsi_mil": (["train", "asmil", "multi_gpu_train"], 30, SMALL),
}


def launch(bundle, data, out):
    """Start ``torchrun`` with the words of the page, in a session of its own."""
    configs, epochs, overrides = KILLED[bundle]
    words = ["--standalone", "--nproc_per_node", "2", "--max-restarts", "1", "-m", "monai.bundle", "run"]
    words += ["--config_file", str([f"configs/{name}.yaml" for name in configs])]
    options = {**overrides, "dataset_dir": data, "ckpt_dir": out, "output_dir": out, "epochs": epochs}
    words += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", **NO_GPU}
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words],
        cwd=BUNDLES / bundle,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow(buys="exact resume after the kill of a process of torchrun")
@pytest.mark.parametrize("bundle", KILLED)
def test_multi_gpu_train_resumes_after_a_killed_process_exactly(bundle, data, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    last = f"checkpoint_epoch={KILLED[bundle][1]}.pt"
    output, _ = launch(bundle, data[bundle], whole).communicate(timeout=300)
    assert (whole / last).exists(), output
    run = launch(bundle, data[bundle], killed)
    deadline = time.monotonic() + 300
    while not (killed / "checkpoint_epoch=3.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert not (killed / last).exists()
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    assert "Restored all variables from" in output
    expected, got = (torch.load(out / last, weights_only=True) for out in (whole, killed))
    for state in (expected, got):
        state["parts"] = state["training_state"]["parts"]
        state["draws"] = [process["torch"] for process in state["training_state"]["random"]]
    assert len(got["draws"]) == 2
    for part in ("network", "optimizer", "parts", "draws"):  # dropout, anchor and all
        assert_close(got[part], expected[part], rtol=0, atol=0, msg=lambda m, part=part: f"{part}: {m}")
    assert len(list(killed.glob("events.*"))) == 2  # of TensorBoard: the first process's, before and after
