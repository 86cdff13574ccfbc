"""Test that the output of scan_mil names neither the patient nor the source of a scan."""

import logging
import re

import torch

from monai_mil_ext.networks.nets import ABMIL
from tests.scans import SECRETS, write_series


def test_scan_mil_inference_names_neither_patient_nor_source(start, digits, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    folder, out = tmp_path / "Secretname_Jane_source", tmp_path / "out"
    write_series(folder)
    torch.save(ABMIL(64 * 64, 2, hidden_size=128).state_dict(), tmp_path / "model.pt")
    paths = {"dataset_dir": str(digits), "ckpt_dir": str(tmp_path), "output_dir": str(out)}
    sizes = {"spatial_size": 64, "in_features": 64 * 64}
    start("inference", "digits", **paths, **sizes, input=str(folder), case_id="c1").run()
    files = [path for path in out.rglob("*") if path.is_file()]
    results = {"c1.png", "c1_scores.json", "c1_scores.nii.gz", "prediction.json"}
    viewer = {"index.html", "scan.js", "slices_000.jpg", "viewer.css", "viewer.js"}
    assert {path.name for path in files} == results | viewer
    printed = capfd.readouterr()
    output = [caplog.text, printed.out, printed.err, *(p.read_bytes().decode("latin-1") for p in files)]
    secrets = [*SECRETS.values(), "Secretname", str(folder), folder.name]
    assert [word for word in secrets for text in output if word in text] == []
    assert "research use only" in caplog.text


def test_scan_mil_inference_derives_a_case_id_without_the_name(start, digits, tmp_path):
    torch.save(ABMIL(64 * 64, 2, hidden_size=128).state_dict(), tmp_path / "model.pt")
    paths = {"dataset_dir": str(digits), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path / "out")}
    for name in ("Secretname_1", "Secretname_2"):
        write_series(tmp_path / name, (5, 6, 3 + int(name[-1])))
        start("inference", "digits", **paths, spatial_size=64, in_features=64 * 64, input=str(tmp_path / name)).run()
    cases = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(cases) == 2
    assert all(re.fullmatch("case-[0-9a-f]{12}", case) for case in cases)
