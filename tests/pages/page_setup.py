"""Functions that write the data of pages: small files with the names that the commands use."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import torch

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.data import InstanceSource, TileGrid, write_bag
from monai_mil_ext.networks.nets import ABMIL, QGMIL
from monai_mil_ext.transforms import LoadScan, TileBag
from tests.bundles import rsna_files, small_bags, wsi
from tests.bundles.scripts_of import scripts_of
from tests.dicom_annotations import FRAME, square, write_contours
from tests.experiments import mnist_bags
from tests.scans import write_nifti, write_series

__all__ = [
    "SLURM", "attention_files", "bag_cohort", "handwritten", "labeled_scans", "phantoms", "phantoms_and_table",
    "quickstart", "rsna", "scans_and_slides", "slides_and_features", "slides_to_predict", "study_tables",
    "torchmil_set", "trained_on_scans", "write_encoder", "write_programs",
]  # fmt: skip

CT = Path("bundles/scan_mil")
# torchrun, and what stands in for the programs of Slurm: `srun` starts a process for each machine on this one
SLURM = {
    "torchrun": '#!/bin/bash\nexec python -m torch.distributed.run "$@"\n',
    "scontrol": "#!/bin/bash\necho localhost\n",
    "srun": """#!/bin/bash
for machine in $(seq 0 $((SLURM_NNODES - 1))); do
  SLURM_PROCID=$machine SLURM_NODEID=$machine SLURM_LOCALID=0 SLURM_NTASKS=$SLURM_NNODES "$@" & started="${started-} $!"
done
for process in $started; do wait "$process" || exit 1; done
""",
}


def write_programs(folder: Path, programs: dict[str, str]) -> None:
    """Write executable files from their texts."""
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def write_encoder(folder: Path) -> Path:
    """Write a DINOv2 with one layer of width 16 for images of 32 x 32."""
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    transformers.Dinov2Model(transformers.Dinov2Config(**sizes, mlp_ratio=1)).save_pretrained(folder)
    processor = {"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def phantoms(repo: Path) -> None:
    """Write six series of 30 slices, eight of them with contours, as the demo CTs are named."""
    data = repo / CT / "data"
    names = ["pat_1", "pat_2", "pat_3", "pat_4", "lung1", "lung2"]
    first = data / names[0]
    write_series(first, (8, 8, 30), FrameOfReferenceUID=FRAME)
    write_contours(first / "rt.dcm", {"GTV-1": [square(first, k, (4, 4), 2) for k in range(11, 19)]})
    for name in names[1:]:
        shutil.copytree(first, data / name)
    mask = np.broadcast_to((np.arange(30) >= 11) & (np.arange(30) < 19), (8, 8, 30)).astype(np.uint8)
    write_nifti(data / "pat_4_reference.nii.gz", mask, LoadScan()(first).affine)  # as scripts.prepare writes it
    scans = [{"case_id": name, "patient": name, "image": name, "reference": name} for name in names]
    (data / "cohort.json").write_text(json.dumps({"license": "none", "scans": scans}))


def torchmil_set(repo: Path) -> None:
    """Write a data set of torchmil, as its archives are unpacked: 24 scans, a third of which is tested."""
    draw, rows = np.random.default_rng(0), ["bag_name,split"]
    for i in range(24):
        labels = (np.arange(8) < 3) & (i % 2 == 1)
        features = draw.normal(size=(8, 4)).astype(np.float32) + 3 * labels[:, None]
        arrays = {"features/features_resnet18": features.astype(np.float32), "labels": np.array([i % 2])}
        for folder, values in (arrays | {"slice_labels": labels.astype(np.int64)}).items():
            path = repo / "bundles" / "bag_classifier" / "SET" / folder / f"scan_{i}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, values)
        rows.append(f"scan_{i},{'test' if i % 3 == 0 else 'train'}")
    (path.parents[1] / "splits.csv").write_text("\n".join(rows))


def trained_on_scans(repo: Path) -> None:
    """Write the phantoms, a table of two of them, and a network."""
    phantoms(repo)
    trained = repo / CT / "models" / "trained"
    trained.mkdir()
    torch.save(ABMIL(64, 2, hidden_size=128).state_dict(), trained / "model.pt")
    (repo / CT / "scans.csv").write_text("case_id,image\na,data/pat_1\nb,data/pat_2\n")
    folder_of_scans(repo)


def folder_of_scans(repo: Path) -> None:
    """Write a folder of two scans in different containers."""
    scans = repo / CT / "SCANS"
    shutil.copytree(repo / CT / "data" / "pat_1", scans / "c1")
    write_nifti(scans / "c2.nii.gz", *_loaded(scans / "c1"))


def phantoms_and_table(repo: Path) -> None:
    """Write the phantoms, a folder of scans, and a table of ten scans with labels."""
    phantoms(repo)
    folder_of_scans(repo)
    draw, rows = np.random.default_rng(0), []
    for i in range(10):
        voxels = draw.integers(-1000, 400, (8, 8, 12)).astype(np.int16)
        write_nifti(repo / CT / "data" / f"scan_{i}.nii.gz", voxels, np.diag([1.0, 1.0, 5.0, 1.0]))
        rows.append((f"scan_{i}", f"p{i}", f"data/scan_{i}.nii.gz", ["normal", "tumor"][i % 2]))
    _table(repo / CT / "cohort.csv", ["case_id", "patient", "image", "label"], rows)


def _loaded(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    scan = LoadScan()(folder)
    return scan[0].numpy(), scan.affine.numpy()


def labeled_scans(repo: Path) -> None:
    """Write sixty scans with one label each, and one without."""
    scripts_of("scan_mil", "digit_scans").prepare_digit_scans(repo / CT / "data")
    write_series(repo / CT / "SCAN", (8, 8, 30))


def quickstart(repo: Path) -> None:
    """Write the phantoms, and an environment that counts as set up, so that nothing is installed."""
    phantoms(repo)
    bin_ = repo / "venv" / "bin"
    bin_.mkdir(parents=True)
    write_programs(bin_, {"python": '#!/bin/sh\nexec python "$@"\n'})
    sources = b"".join((repo / name).read_bytes() for name in ("constraints.txt", "setup.cfg", "pyproject.toml"))
    (repo / "venv" / ".installed-core").write_text(f"{hashlib.sha256(sources).hexdigest()}  -\n")


def rsna(repo: Path) -> None:
    """Write files of RSNA 2019, 24 scans of three slices, and an encoder of their size."""
    rsna_files.head(repo / "rsna", {f"s{i}": (f"p{i}", [0, i % 2, 0]) for i in range(24)})
    torch.save(rsna_files.vit_state(patch=112), repo / "vit.pth")


def bag_cohort(repo: Path) -> None:
    """Write forty bags, twice, and scans of digits."""
    for folder in (repo / "bundles/bag_classifier/data/digits", repo / "study/bags"):
        scripts_of("bag_classifier", "prepare").write_cohort(small_bags.bags(), folder / "cohort.csv")
    scripts_of("scan_mil", "prepare").prepare_digits(repo / "study/cohort", num_scans=4)


def study_tables(repo: Path) -> None:
    """Write two cohorts of bags with clinical variables, features of two encoders, weights, and bags to predict."""
    bundle = repo / "bundles/bag_classifier"
    for name, num_bags in (("cohort", 48), ("other", 12)):
        rows = []
        for key, (label, instances) in small_bags.bags(num_bags).items():
            file = f"{name}_{key}.h5"
            for folder in ("bags", "features_uni_v1", "features_conch_v15"):
                write_bag(bundle / folder / file, {"features": instances})
            site, sex = "abc"[int(key) // 2 % 3], "mf"[int(key) // 3 % 2]
            rows.append(
                (file[:-3], f"p{key}", f"bags/{file}", ["normal", "tumor"][label], site, 50 + int(key) % 20, sex)
            )
        _table(bundle / f"{name}.csv", ["case_id", "patient", "image", "label", "site", "age", "sex"], rows)
    for i in range(2):
        write_bag(bundle / "NEW" / f"n{i}.h5", {"features": torch.randn(5, 8)})
    shapes = {"patch_embed.0": (6, 8), "global_attn.attention_c": (1, 4)}
    shapes |= {f"global_attn.attention_{part}.0": (4, 6) for part in "ab"}
    weights = {f"model.{name}.weight": torch.rand(shape) for name, shape in shapes.items()}
    (bundle / "FOLDER").mkdir()
    biases = {f"model.{name}.bias": torch.rand(shape[0]) for name, shape in shapes.items()}
    torch.save(weights | biases, bundle / "FOLDER" / "pytorch_model.bin")


def handwritten(repo: Path) -> None:
    """Write digits of two brightnesses, so that nothing is downloaded."""
    mnist_bags.write_digits(repo / "scripts/experiments/mnist_bags/data")


def slides_and_features(repo: Path) -> None:
    """Write a cohort of features in ``DIR``, one of slides in ``SLIDES``, and one of each to predict on."""
    bundle = repo / "bundles/wsi_mil"
    wsi.write_cohort(bundle / "DIR", patients=20)
    for i in range(3):
        wsi.write_features(bundle / "FEATURES" / f"f{i}.h5", torch.randn(8, wsi.F).numpy())
    (bundle / "SLIDES").mkdir()
    rows = [(f"s{i}.tif", f"p{i}", i % 2) for i in range(20)]
    for file, _, label in rows:
        wsi.write_small_slide(bundle / "SLIDES" / file, color=(196, 120 - 40 * label, 170))
    _table(bundle / "SLIDES" / "cohort.csv", ["bag", "patient", "label"], rows)
    wsi.write_small_slide(bundle / "SLIDE")


def slides_to_predict(repo: Path) -> None:
    """Write a network of ``wsi_mil``, files of features, some with their slide, and a slide."""
    bundle = repo / "bundles/wsi_mil"
    net = QGMIL(wsi.F, 2, hidden_size=16, num_layers=1)
    save_model(bundle / "models" / "trained", net, sources=[InstanceSource(width=wsi.F)])
    for i in range(2):
        wsi.write_features(bundle / "features" / f"f{i}.h5", torch.randn(8, wsi.F).numpy())
    wsi.write_small_slide(bundle / "slide.svs")
    tiles = TileBag(TileGrid(32, mpp=0.5))(bundle / "slide.svs").coords.numpy()
    trident = {"patch_size": 32, "patch_size_level0": 32, "target_magnification": 20, "level0_magnification": 20}
    trident |= {"level0_width": 320, "level0_height": 256}
    layouts = {
        ("trident/20x_256px_0px_overlap/features_uni_v1", "slides/batch_1"): trident,
        ("FEATURES_DIRECTORY/h5_files", "DATA_DIRECTORY"): {},
    }
    for (features, slides), attributes in layouts.items():
        (bundle / features).mkdir(parents=True)
        (bundle / slides).mkdir(parents=True)
        wsi.write_small_slide(bundle / slides / "s1.svs")
        with h5py.File(bundle / features / "s1.h5", "w") as file:
            file["features"], file["coords"] = torch.randn(len(tiles), wsi.F).numpy(), tiles
            file["coords"].attrs.update(attributes)


def scans_and_slides(repo: Path) -> None:
    """Write the input of ``instance_encoder``: scans and slides in ``DIR``, and one scan."""
    bundle = repo / "bundles/instance_encoder"
    scripts_of("scan_mil", "prepare").prepare_digits(bundle / "DIR", num_scans=3)
    for i in range(2):
        wsi.write_small_slide(bundle / "DIR" / f"s{i}.tif")
    _table(bundle / "DIR" / "slides.csv", ["case_id", "image"], [(f"s{i}", f"s{i}.tif") for i in range(2)])
    write_series(bundle / "SCAN", (8, 8, 5))


def attention_files(repo: Path) -> None:
    """Write the files of evaluations and trainings that figures are drawn from."""
    evaluated = repo / "bundles/bag_classifier/eval/fold_0"
    evaluated.mkdir(parents=True)
    _table(evaluated / "bags.csv", ["case_id", "label"], [("x", 0), ("y", 1)])
    shares = [("x", 0, 0.5), ("x", 0, 0.5), ("y", 1, 0.9), ("y", 1, 0.1)]
    _table(evaluated / "instances.csv", ["case_id", "label", "attention"], shares)
    epochs = [{"epoch": 1, "jsd": None, "uniformity": 1.0}, {"epoch": 2, "jsd": 0.1, "uniformity": 0.5}]
    for name in ("a", "b"):
        (repo / "runs" / name).mkdir(parents=True)
        (repo / "runs" / name / "attention_stability.json").write_text(json.dumps({"jsd": 0.1, "epochs": epochs}))


def _table(path: Path, columns: list[str], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
