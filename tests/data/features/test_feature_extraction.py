"""Tests of FeatureExtraction: every scan once, in one process or two, and a report of each."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

from monai_mil_ext.data import CohortColumns, load_cohort, read_bag
from tests.data.features.extraction_runs import made, make_run, scans
from tests.utils.dask_clusters import cluster

ROOT = Path(__file__).parents[3]


def test_feature_extraction_computes_only_missing_features(tmp_path):
    first = make_run(tmp_path)(scans(2))
    second = make_run(tmp_path)(scans(5))
    assert [case for case, _ in made(tmp_path)] == [f"c{i}" for i in range(5)]
    assert [first[key] for key in ("scans", "done_before", "made", "failed", "instances")] == [2, 0, 2, 0, 6]
    assert [second[key] for key in ("scans", "done_before", "made", "failed", "instances")] == [5, 2, 3, 0, 9]
    assert second["encoder"] == "net"
    assert second["instances_per_second"] == pytest.approx(9 / second["seconds"], rel=0.5, abs=1e6)
    assert second == json.loads((tmp_path / "out" / "features.json").read_text())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["features.json"]


def test_feature_extraction_leaves_no_report_of_an_earlier_run(tmp_path):
    make_run(tmp_path)(scans(2))
    with pytest.raises(RuntimeError, match="case 'bad' gave no features: No space left on device"):
        make_run(tmp_path, error=OSError(28, "No space left on device"))(scans(2, "bad"))
    assert list((tmp_path / "out").iterdir()) == []


def test_feature_extraction_table_is_a_cohort(tmp_path):
    run = make_run(tmp_path, error=ValueError("no scan"))
    report = run(scans(3, "bad"))
    items = load_cohort(run.cache.folder / "bags.csv", CohortColumns())
    assert [(item["case_id"], item["patient"], item["label"]) for item in items] == [
        ("c0", "p0", 0),
        ("c1", "p1", 1),
        ("c2", "p2", 0),
    ]
    assert read_bag(items[2]["image"], ["features", "encoder"])["features"].tolist() == [[2, 2]] * 3
    assert report["folder"] == run.cache.folder.name == "f" * 12


def test_feature_extraction_reports_failing_scans(tmp_path):
    run = make_run(tmp_path, error=ValueError("`image` must be a scan."))
    report = run(scans(3, "bad"))
    assert (report["made"], report["failed"]) == (3, 1)
    assert report["reasons"] == {"`image` must be a scan.": ["bad"]}
    summary = run.summary(report)
    assert "4 scans: 0 done before, 3 made, 1 failed; 9 instances in " in summary
    assert summary.endswith("(research use only)\n  bad: `image` must be a scan.")
    with pytest.raises(RuntimeError, match=r"`cohort` must be scans that give features, got 1 that don't: \['bad'\]"):
        run.raise_if_failed(report)
    run.raise_if_failed(make_run(tmp_path)(scans(3, "bad")))


def test_feature_extraction_on_error(tmp_path):
    with pytest.raises(RuntimeError, match="case 'bad' gave no features: no scan"):
        make_run(tmp_path, "raise", error=ValueError("no scan"))(scans(1, "bad"))
    for error in (OSError(28, "No space left on device"), MemoryError(), torch.OutOfMemoryError("CUDA")):
        with pytest.raises(RuntimeError, match="case 'bad' gave no features"):
            make_run(tmp_path, error=error)(scans(1, "bad"))
    with pytest.raises(ValueError, match="`on_error` must be one of 'skip', 'raise', got 'warn'"):
        make_run(tmp_path, "warn")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no file /data/Jane/s.nii.gz is read"), "no file the file is read"),
        (ValueError("'s.nii.gz' is cut"), "the file is cut"),
        (ValueError("see /home/Jane/temp/x.dcm: bad"), "see the file bad"),
        (FileNotFoundError(2, "No such file", "/data/Jane/s.nii.gz"), "No such file"),
        (ValueError("shape (1/2) and 3/4\n mm"), "shape (1/2) and 3/4 mm"),
    ],
)
def test_feature_extraction_reports_no_paths(tmp_path, error, reason):
    items = [{**scans(0, "bad")[0], "image": "/data/Jane/s.nii.gz"}]
    assert list(make_run(tmp_path, error=error)(items)["reasons"]) == [reason]


def work(rank, folder):
    """Run one of two processes."""
    torch.set_num_threads(1)
    os.environ["RANK"] = str(rank)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    run = make_run(Path(folder), error=ValueError("no scan"))
    report = run(scans(6, "bad"))
    Path(folder, f"report_{rank}.json").write_text(json.dumps(report))
    distributed.destroy_process_group()


@pytest.mark.slow(buys="two processes share an extraction")
def test_feature_extraction_in_two_processes(tmp_path):
    make_run(tmp_path)(scans(2))
    torch.multiprocessing.start_processes(work, (str(tmp_path),), nprocs=2, start_method="forkserver")
    ranks = {"c0": "0", "c1": "0", "c2": "0", "c3": "1", "c4": "0", "c5": "1"}  # every second one of those missing
    assert made(tmp_path) == sorted(ranks.items())
    report, other = (json.loads((tmp_path / f"report_{rank}.json").read_text()) for rank in (0, 1))
    assert report == other
    assert [report[key] for key in ("done_before", "made", "failed", "processes", "instances")] == [2, 4, 1, 2, 12]
    assert report["reasons"] == {"no scan": ["bad"]}


WORKER = """
import sys
from pathlib import Path
from torch import distributed
from tests.data.features.extraction_runs import make_run, scans
distributed.init_process_group("gloo")
run = make_run(Path(sys.argv[1]), kill="c5")
print(run.summary(run(scans(8))))
"""


@pytest.mark.slow(buys="an extraction resumes after the kill of a worker")
@pytest.mark.parametrize("restarts", [0, 1])
def test_feature_extraction_after_a_killed_worker(tmp_path, restarts):
    (tmp_path / "worker.py").write_text(WORKER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, f"--max-restarts={restarts}", str(tmp_path / "worker.py"), str(tmp_path)]
    # or processes that are started again find, in the launcher's store, where those before them listened (PyTorch 2.13)
    own_store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    options = {"cwd": ROOT, "env": {**os.environ, **own_store, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}}
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert (tmp_path / "log" / "killed").exists()
    if not restarts:
        assert done.returncode != 0
        assert not (tmp_path / "out" / "features.json").exists()
        before = {path.name for path in (tmp_path / "features").rglob("*.h5")}
        assert "c5.h5" not in before
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        report = json.loads((tmp_path / "out" / "features.json").read_text())
        assert (report["done_before"], report["made"]) == (len(before), 8 - len(before))
    assert done.returncode == 0, done.stderr
    assert [case for case, _ in made(tmp_path)] == [f"c{i}" for i in range(8)]  # each once
    rows = list(csv.DictReader((tmp_path / "features" / ("f" * 12) / "bags.csv").open()))
    assert len(rows) == 8


def test_feature_extraction_on_dask_workers_makes_each_missing_scan_once(tmp_path):
    make_run(tmp_path)(scans(2))
    run = make_run(tmp_path, error=ValueError("no scan"))
    with cluster({}, {}) as run.scheduler:
        report = run(scans(5, "bad"))
    assert [case for case, _ in made(tmp_path)] == [f"c{i}" for i in range(5)]
    assert [report[key] for key in ("done_before", "made", "failed", "instances", "processes")] == [2, 3, 1, 9, 1]
    assert report["reasons"] == {"no scan": ["bad"]}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["features.json"]


def test_feature_extraction_on_dask_workers_ends_with_an_error_of_the_machine(tmp_path):
    run = make_run(tmp_path, error=OSError(28, "No space left on device"))
    with cluster({}) as run.scheduler, pytest.raises(RuntimeError, match="No space left on device"):
        run(scans(2, "bad"))
