"""Tests of the check of the command line of a bundle."""

import sys

import pytest

from monai_mil_ext.apps.bundle import check_cli_overrides


def command(config, *words):
    return ["monai/bundle/__main__.py", "run", "--config_file", str(config), *words]


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)  # restored after the test
    (tmp_path / "c.yaml").write_text("epochs: 1\ntrain:\n  trainer: {_target_: Trainer, max_epochs: 2}\n  names: [a]\n")
    return tmp_path / "c.yaml"


@pytest.mark.parametrize(
    "words",
    [["--epochs", "3"], ["--train#trainer#amp", "True"], ["--train::trainer::max_epochs=3"], ["--run_id", "run"]],
)
def test_check_cli_overrides_accepts_known_keys(config, words):
    check_cli_overrides(command(config, *words))


@pytest.mark.parametrize(
    ("word", "message"),
    [("--epoch", "got 'epoch'; did you mean 'epochs'"), ("--train#trainr#amp", "got 'trainr'; did you mean 'trainer'")],
)
def test_check_cli_overrides_names_misspelled_keys(config, word, message):
    with pytest.raises(ValueError, match=message):
        check_cli_overrides(command(config, word, "3"))


@pytest.mark.parametrize("words", [["--ckpt_dir", "s3://bucket/models"], ["--input=S3://bucket/a.h5"]])
def test_check_cli_overrides_refuses_remote_folders(config, words):
    config.write_text(config.read_text() + "ckpt_dir: models\ninput: a.h5\ntracking_uri: http://host\n")
    check_cli_overrides(command(config, "--ckpt_dir", "C:/models", "--tracking_uri", "https://host"))
    with pytest.raises(ValueError, match="must be a local path, got an address that begins with 's3://'"):
        check_cli_overrides(command(config, *words))
    config.write_text(config.read_text().replace("ckpt_dir: models", "ckpt_dir: gs://bucket"))
    with pytest.raises(ValueError, match="`ckpt_dir` must be a local path, got an address that begins with 'gs://'"):
        check_cli_overrides(command(config))


def test_check_cli_overrides_ignores_other_programs(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", None)
    check_cli_overrides(["pytest", "--epoch", "3"])
    check_cli_overrides(["monai/bundle/__main__.py", "verify_metadata", "--filepth", "x"])
    assert sys.excepthook is None


def test_check_cli_overrides_reads_keys_of_an_args_file(config, tmp_path):
    (tmp_path / "args.yaml").write_text(f"config_file: {config}\nepoch: 3\n")
    words = ["monai/bundle/__main__.py", "run", "--args_file", str(tmp_path / "args.yaml")]
    with pytest.raises(ValueError, match="got 'epoch'; did you mean 'epochs'"):
        check_cli_overrides(words)
    check_cli_overrides(words[:2])


def test_check_cli_overrides_makes_errors_end_with_their_cause(config):
    before = sys.excepthook
    check_cli_overrides(command(config))
    assert sys.excepthook is not before
