"""Tests of the runner of studies: finished, changed, parallel and failed runs."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from monai_mil_ext.apps.study import Run, RunsFailedError, StudyRunner, parse_part
from monai_mil_ext.utils.remote import ObjectPath, StoreError

RUNS = [Run(f"group/x_{x}", {"x": x}) for x in range(4)]


def square(run, folder):
    (folder / "done.txt").open("a").write("x")
    return {"square": run.settings["x"] ** 2, "nothing": float("nan")}


def fail_at(value, run, folder):
    if run.settings["x"] == value:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise RuntimeError("outer") from error
    return square(run, folder)


def die_at(value, run, folder):
    if run.settings["x"] == value:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(run, folder)


def wait_for_another_process(run, folder):
    """Return the process id, once the runs of two processes have begun."""
    (folder / f"{os.getpid()}.pid").touch()
    deadline = time.monotonic() + 60
    while len({path.name for path in folder.parent.glob("*/*.pid")}) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return {"pid": os.getpid()}


def times_done(runner, run):
    return len((runner.run_folder(run) / "done.txt").read_text())


def test_study_runner_keeps_settings_and_record_and_does_a_run_once(tmp_path):
    runner = StudyRunner(tmp_path, square)
    record = runner.run(RUNS[3])
    assert (record["square"], record["nothing"]) == (9, None)
    assert {"wall_seconds", "cpu_seconds", "date"} <= record.keys()
    content = json.loads((tmp_path / "group" / "x_3" / "run.json").read_text())
    assert content == {"settings": {"x": 3}, "record": record}
    assert runner.run(RUNS[3]) == runner.read(RUNS[3]) == record
    assert times_done(runner, RUNS[3]) == 1


def test_study_runner_compares_settings_as_json(tmp_path):
    runner = StudyRunner(tmp_path, lambda run, folder: {})
    record = runner.run(Run("a", {"sizes": (1, 2)}))
    assert runner.read(Run("a", {"sizes": [1, 2]})) == record


def test_study_runner_empties_the_folder_of_a_run_with_other_settings(tmp_path):
    runner = StudyRunner(tmp_path, square)
    runner.run(RUNS[1])
    (tmp_path / "group" / "x_1" / "checkpoint.pt").touch()
    changed = Run(RUNS[1].name, {"x": 5})
    assert runner.read(changed) is None
    assert runner.run(changed)["square"] == 25
    assert times_done(runner, changed) == 1
    assert not (tmp_path / "group" / "x_1" / "checkpoint.pt").exists()


def test_study_runner_resumes_an_interrupted_run_in_its_folder(tmp_path):
    def interrupted(run, folder):
        (folder / "checkpoint.pt").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StudyRunner(tmp_path, interrupted).run_all(RUNS)
    runner = StudyRunner(tmp_path, square)
    assert runner.read(RUNS[0]) is None
    runner.run(RUNS[0])
    assert (tmp_path / "group" / "x_0" / "checkpoint.pt").exists()


def test_run_all_reports_progress_and_skips_finished_runs(tmp_path):
    runner, lines = StudyRunner(tmp_path, square), []
    runner.run(RUNS[2])
    records = runner.run_all(RUNS, report=lines.append)
    assert [record["square"] for record in records] == [0, 1, 4, 9]
    assert lines == [f"group/x_{x}: done in 0 s ({k} of 4)" for k, x in ((2, 0), (3, 1), (4, 3))]
    assert runner.run_all(RUNS, report=None) == runner.read_all(RUNS) == records


@pytest.mark.parametrize("jobs", [1, 2])
def test_run_all_goes_on_after_a_failure_and_raises_at_the_end(tmp_path, jobs):
    runner, lines = StudyRunner(tmp_path, partial(fail_at, 1)), []
    with pytest.raises(RunsFailedError, match=r"1 of 4 runs failed; .*\n  group/x_1: KeyError: 'inner'") as error:
        runner.run_all(RUNS, jobs=jobs, report=lines.append)
    assert error.value.failures == {"group/x_1": "KeyError: 'inner'"}
    assert len(lines) == 4
    assert "RuntimeError: outer" in (tmp_path / "group" / "x_1" / "error.txt").read_text()
    runner.work = square
    assert len(runner.run_all(RUNS, report=None)) == 4
    assert not (tmp_path / "group" / "x_1" / "error.txt").exists()
    assert times_done(runner, RUNS[3]) == 1


def test_run_all_survives_a_killed_process_and_names_its_run(tmp_path):
    runner = StudyRunner(tmp_path, partial(die_at, 1))
    with pytest.raises(RunsFailedError, match="1 of 4 runs failed") as error:
        runner.run_all(RUNS, jobs=2, report=None)
    assert error.value.failures == {"group/x_1": "its process was killed"}
    assert [runner.read(run) is None for run in RUNS] == [False, True, False, False]


def test_run_all_uses_several_processes(tmp_path):
    records = StudyRunner(tmp_path, wait_for_another_process, threads=1).run_all(RUNS, jobs=2, report=None)
    assert len({record["pid"] for record in records} - {os.getpid()}) == 2


def test_run_all_does_one_part_of_several(tmp_path):
    runner = StudyRunner(tmp_path, square)
    assert [r["square"] for r in runner.run_all(RUNS, part=(1, 3), report=None)] == [0, 9]
    with pytest.raises(RuntimeError, match=r"every run must be finished, but 2 are not, first \['group/x_1', 'group/"):
        runner.read_all(RUNS)
    for number in (2, 3):
        runner.run_all(RUNS, part=(number, 3), report=None)
    assert len(runner.read_all(RUNS)) == 4


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ([RUNS[0], RUNS[0]], {}, r"`runs` must have different names, got \['group/x_0'\]"),
        (RUNS, {"part": (0, 2)}, r"`part` must be \(i, n\) with i from 1 to n, got \(0, 2\)"),
        (RUNS, {"jobs": 0}, "`jobs` must be"),
        (RUNS, {"scheduler": "host"}, "`scheduler` must be local or an address"),
    ],
)
def test_run_all_names_a_bad_option(tmp_path, runs, options, message):
    with pytest.raises(ValueError, match=message):
        StudyRunner(tmp_path, square).run_all(runs, **options)


@pytest.mark.parametrize("name", ["", "../a", "/a", "a/../../b"])
def test_run_refuses_a_name_that_leads_out_of_the_folder(name):
    with pytest.raises(ValueError, match="`name` must be a relative path inside the study's folder"):
        Run(name, {})


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "1/2/3", "-1/2"])
def test_parse_part_refuses_anything_else(text):
    with pytest.raises(ValueError, match="`part` must be i/n"):
        parse_part(text)


def test_study_runner_resumes_a_killed_study(tmp_path):
    program = (
        "import sys, time\n"
        "from monai_mil_ext.apps.study import Run, StudyRunner\n"
        "def work(run, folder):\n"
        "    (folder / 'started').touch()\n"
        "    time.sleep(600 * run.settings['x'])\n"
        "    return {}\n"
        "runs = [Run(f'x_{x}', {'x': x}) for x in (0, 1)]\n"
        "StudyRunner(sys.argv[1], work).run_all(runs)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "x_0: done in 0 s (1 of 2)\n"
        while not (tmp_path / "x_1" / "started").exists():
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    runner = StudyRunner(tmp_path, lambda run, folder: {"started": (folder / "started").exists()})
    runs = [Run(f"x_{x}", {"x": x}) for x in (0, 1)]
    assert runner.read(runs[0]) is not None
    assert runner.run_all(runs, report=None)[1]["started"]


def test_study_runner_leaves_no_temporary_file(tmp_path):
    StudyRunner(tmp_path, square).run_all(RUNS, report=None)
    assert {path.name for path in Path(tmp_path).rglob("*") if path.is_file()} == {"run.json", "done.txt"}


def in_store(address):
    return {str(path.relative_to(ObjectPath(address))): path.read_text() for path in ObjectPath(address).sizes()}


def test_study_runner_keeps_runs_in_an_object_store(memory):
    record = StudyRunner(f"{memory}/runs", square).run(RUNS[3])
    assert json.loads(in_store(memory)["runs/group/x_3/run.json"]) == {"settings": {"x": 3}, "record": record}
    again = StudyRunner(f"{memory}/runs", square)
    assert again.run_all(RUNS, report=None)[3] == record
    assert {name: len(text) for name, text in in_store(memory).items() if "done" in name} == {
        f"runs/group/x_{x}/done.txt": 1 for x in range(4)
    }


def test_a_run_that_was_killed_before_its_record_arrived_is_done_again(memory, monkeypatch):
    upload = ObjectPath.upload

    def die(self, file):
        if self.name == "run.json" and "record" in file.read_text():
            raise KeyboardInterrupt
        upload(self, file)

    monkeypatch.setattr(ObjectPath, "upload", die)
    with pytest.raises(KeyboardInterrupt):
        StudyRunner(f"{memory}/runs", square).run(RUNS[2])
    assert json.loads(in_store(memory)["runs/group/x_2/run.json"]) == {"settings": {"x": 2}}
    assert in_store(memory)["runs/group/x_2/done.txt"] == "x"
    monkeypatch.setattr(ObjectPath, "upload", upload)
    assert StudyRunner(f"{memory}/runs", square).run(RUNS[2])["square"] == 4
    assert in_store(memory)["runs/group/x_2/done.txt"] == "xx"


def test_a_changed_run_loses_its_record_in_the_store_before_its_files_change(memory, monkeypatch):
    StudyRunner(f"{memory}/runs", square).run(RUNS[1])
    with pytest.raises(KeyboardInterrupt):
        StudyRunner(f"{memory}/runs", interrupt).run(Run(RUNS[1].name, {"x": 5}))
    assert in_store(memory) == {"runs/group/x_1/run.json": '{\n  "settings": {\n    "x": 5\n  }\n}\n'}
    assert StudyRunner(f"{memory}/runs", square).read(RUNS[1]) is None


def interrupt(run, folder):
    raise KeyboardInterrupt


def test_a_run_whose_upload_fails_has_failed_and_the_next_one_is_done(memory, monkeypatch):
    upload = ObjectPath.upload

    def refuse(self, file):
        if self.parent.name == "x_0":
            raise StoreError("`path` must lie in a store that answers, got none.")
        upload(self, file)

    monkeypatch.setattr(ObjectPath, "upload", refuse)
    with pytest.raises(RunsFailedError, match="1 of 4 runs failed") as raised:
        StudyRunner(f"{memory}/runs", square).run_all(RUNS, report=None)
    assert raised.value.failures == {"group/x_0": "StoreError: `path` must lie in a store that answers, got none."}
    assert {name.split("/")[2] for name in in_store(memory)} == {"x_1", "x_2", "x_3"}


def test_processes_upload_their_runs(s3):
    StudyRunner(f"{s3.root}/runs", square).run_all(RUNS[:2], jobs=2, report=None)
    runner = StudyRunner(f"{s3.root}/runs", square)
    assert [record["square"] for record in runner.read_all(RUNS[:2])] == [0, 1]
    assert [times_done(runner, run) for run in RUNS[:2]] == [1, 1]
