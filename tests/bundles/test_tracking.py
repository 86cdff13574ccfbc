"""Tests of ``--tracking mlflow`` with MLflow in a separate environment."""

import os
import sqlite3
import subprocess
import sys
import sysconfig
from contextlib import closing

import pytest

from tests.bundles.small_bags import BUNDLE, bags, scripts
from tests.bundles.wsi import BUNDLES, SMALL, write_cohort

pytestmark = [pytest.mark.slow(buys="MLflow records a run beside our pinned versions"), pytest.mark.network]
MLFLOW = "mlflow==3.17.2"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A Python that has our packages and MLflow, some of whose own are other versions than ours."""
    folder = tmp_path_factory.mktemp("tracking") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    place = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (place / "ours.pth").write_text("\n".join([sysconfig.get_path("purelib"), str(BUNDLES.parent)]))
    command = [folder / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", MLFLOW]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr[-500:])
    return folder / "bin" / "python"


def tracked(python, bundle, configs, out, **options):
    """Run a bundle with MLflow, and return the names of the metrics and the number of runs that it recorded."""
    options = {
        "config_file": [f"configs/{name}.yaml" for name in configs.split()],
        "tracking": "mlflow",
        "output_dir": out,
        **options,
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [python, "-m", "monai.bundle", "run", *words]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    with closing(sqlite3.connect(out / "mlruns.db")) as base:
        names = {name for (name,) in base.execute("select distinct key from metrics")}
        (runs,) = base.execute("select count(*) from runs").fetchone()
    return names, runs


def test_tracking_of_bag_classifier_train_and_inference(python, tmp_path):
    scripts("prepare").write_cohort(bags(), tmp_path / "cohort.csv")
    where = {"dataset_dir": tmp_path, "ckpt_dir": tmp_path / "m"}
    names, runs = tracked(python, BUNDLE, "train", tmp_path / "e", **where, epochs=2, num_folds=4)
    assert {"loss", "bag_auroc"} <= {name.removeprefix("train_").removeprefix("val_") for name in names}
    assert runs == 1
    _, runs = tracked(python, BUNDLE, "inference", tmp_path / "i", **where)
    assert runs == 1
    assert (tmp_path / "i" / "predictions.csv").exists()


def test_tracking_of_wsi_mil_train(python, tmp_path):
    data = write_cohort(tmp_path / "data")
    where = {"dataset_dir": data, "ckpt_dir": tmp_path / "m"}
    names, runs = tracked(python, BUNDLES / "wsi_mil", "train asmil", tmp_path / "e", **where, **SMALL)
    assert "bag_auroc" in names
    assert "attention_anchor" in names
    assert runs == 1
