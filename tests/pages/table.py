"""Table of the pages whose commands are tested: their data, arguments that shorten them, and lines that are skipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from . import page_setup

__all__ = ["PAGES", "Page"]


class Page(NamedTuple):
    """How the bash blocks of a page are run.

    Attributes:
        start: folder of the repository in which the page begins.
        setup: function that writes the data that the commands read.
        python: number of the page's first Python blocks to run before, because its commands read what they write.
        before: text of a block -> commands to run before that block.
        replace: text -> its replacement.
        append: text of a command -> arguments to append to it, so that it takes a second.
        creates: text of a block -> files that must exist after it, from the folder in which it ends.
        skip: start of a line -> why it is not run, and which file runs or tests it.
    """

    start: str = "."
    setup: Callable[[Path], None] | None = None
    python: int = 0
    before: dict[str, str] = {}
    replace: dict[str, str] = {}
    append: dict[str, list[str]] = {}
    creates: dict[str, list[str]] = {}
    skip: dict[str, tuple[str, str]] = {}


FOUR = {"--nproc_per_node 4": "--nproc_per_node 2"}
# no encoder weights: the pixels of a slice are its features
PIXELS = ["--encoder", "{'_target_':'torch.nn.Flatten'}", "--in_features", "64", "--spatial_size", "8"]
PIXELS_OF_STUDY = ["--encoder", "{'_target_':'torch.nn.Flatten'}", "--spatial_size", "8"]
FLAT = "{'_target_':'monai_mil_ext.networks.encoders.InstanceEncoder','net':{'_target_':'torch.nn.Flatten'},"
FLAT += "'input_spec':{'_target_':'monai_mil_ext.networks.encoders.InputSpec','size':[8,8]},'output':'identity'}"
FLAT = ["--encoder", FLAT, "--spatial_size", "8"]
EPOCH = ["--epochs", "1"]
SMALL_STUDY = ["--epochs", "2", "--num_folds", "2", "--num_samples", "20"]
# bootstrap samples of an evaluation
FEW = {"evaluate.yaml": ["--num_samples", "20"]}
FEW_OF_FOLDS = {"kfold.yaml": ["--num_samples", "20"]}
HUGGING_FACE = ["--encoder_name", "$ENCODER", "--local_files_only", "True"]
SMALL_NET = ["--network_def#hidden_size", "16"]
SLIDE_TRAINING = {
    "train.yaml": ["--epochs", "2", "--batch_size", "4", "--num_samples", "20", *SMALL_NET],
    "slides.yaml": ["--encoder_name", "$ENCODER", "--tile_size", "32"],
}
# below_train=False: with so few epochs, that rule would exclude all of them
PROTOCOL = ["epochs=2", "batch_size=8", "num_samples=20", "below_train=False"]
GRID = ["--grid", "learning_rate=[0.1]", "l1=[0.0001]"]
PROTOCOL_OF_PIXELS = [
    *PROTOCOL,
    "encoder={_target_: torch.nn.Flatten}",
    "in_features=64",
    "spatial_size=8",
    "hounsfield=false",
]

SLIDES = Page(
    setup=page_setup.slides_and_features,
    replace={"for fold in 0 1 2 3 4;": "for fold in 0 4;", "--table cohort.csv": "--table DIR/cohort.csv"},
    append={**SLIDE_TRAINING, "study.yaml": SMALL_STUDY},
    before={
        "slides.yaml": "mv DIR TABLES; mv SLIDES DIR; rm -r models eval",
        "kfold.yaml": "mv DIR SLIDES; mv TABLES DIR; rm -r models eval",
    },
    creates={
        "--input FEATURES": [
            "models/fold_0/model.pt",
            "eval/report.json",
            "eval/f0/prediction.json",
            "eval/f2/f2.geojson",
        ],
        "--input SLIDE": ["eval/case-*/prediction.json", "eval/case-*/case-*_tiles.png"],
        "kfold.yaml": ["eval/folds.json", "eval/fold_4/bags.csv", "models/fold_4/model.pt"],
        "study.yaml": ["study/report.html"],
    },
)

PAGES = {
    "README.md": Page(
        skip={
            "scripts/quickstart": ("also on the quickstart page", "docs/quickstart.md"),
            "scripts/test": ("runs this test", ".ci/run"),
            "pip install torch": ("installs", "tests/test_wheel.py"),
            "pip install .": ("installs", "tests/test_wheel.py"),
        },
    ),
    "docs/installation.md": Page(
        creates={"bundle copy": ["scan_mil/configs/train.yaml"]},
        skip={
            "pip install torch": ("installs", "tests/test_wheel.py"),
            'pip install ".': ("installs", "tests/test_wheel.py"),
        },
    ),
    "docs/quickstart.md": Page(
        setup=page_setup.quickstart,
        skip={"scripts/quickstart   ": ("draws and encodes 260 scans", "tests/experiments/lesions/test_quick.py")},
        append={"train.yaml": EPOCH, "--test_patient pat_4": PIXELS, "--input data/pat_4": PIXELS, **FEW},
        creates={"scripts/quickstart": ["runs/quickstart/digits/inference/digits_0/digits_0.png"]},
    ),
    "docs/lesions.md": Page(
        skip={"": ("draws and encodes at least 260 scans", "tests/experiments/lesions/test_protocol.py")}
    ),
    "docs/claims.md": Page(skip={"": ("trains for an hour", "tests/experiments/claims/test_protocol.py")}),
    "docs/classical.md": Page(skip={"": ("trains for half an hour", "tests/experiments/claims/test_protocol.py")}),
    "docs/how-to/object-storage.md": Page(
        skip={"": ("needs a bucket", "tests/bundles/bag_classifier/test_object_store.py")},
    ),
    "docs/how-to/many-gpus.md": Page(
        start="bundles/bag_classifier",
        setup=page_setup.bag_cohort,
        before={
            "#SBATCH --nodes": "cd $REPO; export SLURM_NNODES=2 SLURM_JOB_ID=7 SLURM_JOB_NAME=mil SLURM_JOB_NODELIST=n",
            "#SBATCH --array": "cd $REPO; export SLURM_ARRAY_TASK_ID=3",
        },
        replace={**FOUR, ":29500": ":$PORT", "/shared/": "$STUDY/"},
        append={"train.yaml": EPOCH, "study/cohort": [*PIXELS, "--test_patient", "digits_0", "--hounsfield", "false"]},
        creates={
            "=1 torchrun": ["models/fold_0/model.pt"],
            "srun": ["$STUDY/runs/mil/model.pt"],
            "--array": ["models/fold_3/model.pt"],
        },
        skip=dict.fromkeys(
            ("dask ", "export DASK", "python -m monai.bundle run --config_file configs/study"),
            ("a cluster of several processes", "tests/apps/study/test_study.py"),
        ),
    ),
    "docs/how-to/monai-label.md": Page(
        skip={"": ("needs the environment of MONAI Label", "tests/apps/test_page_over_http.py")}
    ),
    "docs/how-to/guaranteed-slices.md": Page(
        skip={"": ("needs a trained model and labeled scans", "tests/bundles/scan_mil/test_scan_mil.py")}
    ),
    "docs/how-to/protocols.md": Page(
        setup=page_setup.labeled_scans,
        replace={"for fold in 0 1 2 3 4 5;": "for fold in 0 5;"},
        append={
            **FEW,
            **FEW_OF_FOLDS,
            "protocol.yaml": [
                *PIXELS,
                "--hounsfield",
                "false",
                "--epochs",
                "2",
                "--batch_size",
                "8",
                "--below_train",
                "False",
            ],
            "--input SCAN": PIXELS,
            "--protocol published": ["--seeds", "1001", "--gallery", "1", *GRID, "--set", *PROTOCOL_OF_PIXELS],
            "--protocol modern": ["--grid", "learning_rate=[0.001]", "--set", *PROTOCOL_OF_PIXELS],
        },
        before={"eval_one": "for name in one two; do cp -r runs/published/ABMIL/1001/*/test eval_$name; done"},
        creates={
            "--input SCAN": ["models/published/model.pt", "models/modern/model.pt", "eval/case-*/prediction.json"],
            "evaluate.yaml": ["eval/bags.csv", "eval/report.json"],
            "kfold.yaml": ["eval/fold_5/report.json", "eval/folds.json"],
            "ct_protocol": ["runs/published.html", "runs/modern/TransMIL/1001/*/run.json"],
            "reproduce report": ["page.html"],
        },
    ),
    "docs/how-to/rsna.md": Page(
        setup=page_setup.rsna,
        replace={"/where/the/files/are": "$REPO/rsna"},
        append={
            "source_dir=": [
                *PROTOCOL,
                "in_features=128",
                "spatial_size=224",
                "encoder#weights=$REPO/vit.pth",
                'encoder#sha256=""',
                *GRID,
            ]
        },
        creates={"scripts.rsna": ["data/report.json", "data/intensity_3001.json", "runs/published.html"]},
    ),
    "docs/how-to/public-sets.md": Page(
        setup=page_setup.torchmil_set,
        append={"study.yaml": SMALL_STUDY},
        creates={"study.yaml": ["study/report.html", "study/models/WindowMIL/model.pt"]},
        skip={
            "pip install": ("installs", "tests/test_wheel.py"),
            "scripts/reproduce": ("fetches from the hub", "tests/experiments/test_public_sets.py"),
        },
    ),
    "docs/how-to/study.md": Page(
        start="bundles/bag_classifier",
        setup=page_setup.study_tables,
        append={"study.yaml": SMALL_STUDY},
        creates={
            "inference.yaml": ["eval/check.csv", "study/report.html", "study/models/ABMIL/model.pt", "eval/*.csv"],
            "--external": [
                "study_clinical/external/hospital_c/report.html",
                "study_clinical/tables/effects.csv",
                "study_by_site/runs/ABMIL/fold_2/model.pt",
                "study_of_rates/report.html",
            ],
            "join": ["joined", "study_of_two/report.html"],
            "net=": ["study_of_weights/report.html"],
        },
    ),
    "docs/how-to/scan-results.md": Page(
        start="bundles/scan_mil",
        setup=page_setup.trained_on_scans,
        append={"inference.yaml": PIXELS},
        creates={
            "pat_4": ["eval/pat_4/prediction.json", "eval/pat_4/viewer/index.html"]
            + [
                f"eval/pat_4/pat_4{end}"
                for end in ("_scores.nii.gz", "_scores.json", ".png", ".html", ".gif", "_seg.dcm", "_sr.dcm")
            ]
            + ["eval/pat_4/pat_4_ko.dcm", "eval/pat_4/pat_4_sc.dcm"],
            "names.csv": ["eval/a7/prediction.json"],
            "scans.csv": ["results/results.csv", "results/report.json", "results/b/prediction.json"],
            "SCANS": ["of_folder/index.html", "of_folder/c1/prediction.json", "of_folder/c2/viewer/index.html"],
        },
    ),
    "docs/how-to/model-record.md": Page(
        setup=page_setup.phantoms,
        before={"--input SCAN": "(cd bundles/scan_mil; python -m monai.bundle run --config_file configs/train.yaml)"},
        replace={"--input SCAN": "--input data/pat_1"},
        # the width and size of slices, which are not the defaults, come from the record
        append={"train.yaml": [*PIXELS, *EPOCH], "inference.yaml": PIXELS[:2]},
        creates={"inference.yaml": ["eval/case-*/prediction.json"]},
    ),
    "docs/how-to/slide-predictions.md": Page(
        start="bundles/wsi_mil",
        setup=page_setup.slides_to_predict,
        append={"slides.yaml": SLIDE_TRAINING["slides.yaml"]},
        creates={
            "slide.svs": ["out/f1/prediction.json", "eval/c1/c1.png", "eval/c1/c1_tiles.png", "eval/c1/c1.tif"],
            "h5_files": ["of_trident/s1/s1.png", "of_clam/s1/s1.png", "of_clam/s1/s1_tiles.png"],
        },
    ),
    "docs/how-to/zoo.md": Page(
        start="bundles/bag_classifier", creates={"onnx_export": ["models/model.ts", "models/model.onnx"]}
    ),
    "docs/mnist-bags.md": Page(
        setup=page_setup.attention_files,
        creates={"scripts/reproduce attention": ["pictures/attention_mass.png", "pictures/attention_stability.png"]},
        skip={"scripts/reproduce claims": ("trains for ten minutes", "tests/experiments/claims/test_digits.py")},
    ),
    "docs/tutorials/ct.md": Page(
        start="bundles/scan_mil",
        append={"train.yaml": EPOCH, **FEW},
        creates={
            "scripts.prepare": ["$STUDY/data/cohort.json"],
            "evaluate.yaml": ["$STUDY/guidance_0/report.json", "$STUDY/guidance_1/instances.csv"],
            "inference.yaml": ["$STUDY/results/guidance_1/guidance_1.png"],
        },
    ),
    "docs/tutorials/slides.md": Page(
        python=3,
        append={"train.yaml": ["--epochs", "2", "--val_interval", "1"], "evaluate.yaml": ["--num_samples", "20"]},
        creates={"train.yaml": ["$STUDY/eval/report.json"], "new.tif": ["$STUDY/results/new/new_tiles.png"]},
    ),
    "bundles/bag_classifier/docs/README.md": Page(
        start="bundles/bag_classifier",
        replace={
            "for fold in 0 1 2 3 4;": "for fold in 0 4;",
            "cohort.csv": "data/digits/cohort.csv",
            "BAGS": "data/digits/bags/bag_0007.h5",
        },
        append={"train.yaml": EPOCH, "study.yaml": SMALL_STUDY, **FEW, **FEW_OF_FOLDS},
        creates={
            "torchrun": [
                "models/fold_0/model.pt",
                "eval/fold_3/report.json",
                "eval/folds.json",
                "eval/predictions.csv",
            ],
            "study.yaml": ["study/report.html"],
        },
    ),
    "bundles/scan_mil/docs/README.md": Page(
        start="bundles/scan_mil",
        setup=page_setup.phantoms_and_table,
        replace={
            "for fold in 0 1 2 3 4 5;": "for fold in 0 5;",
            "ABMIL --input SCAN": "ABMIL --input data/scan_0.nii.gz",
        },
        append={
            "train.yaml": [*PIXELS, *EPOCH],
            "study.yaml": [*PIXELS_OF_STUDY, *SMALL_STUDY],
            "check.yaml": ["--estimate", "False"],
            **dict.fromkeys(["--input data/", "--cohort SCANS"], PIXELS),  # the shipped weights need the encoder
            **FEW,
            **FEW_OF_FOLDS,
        },
        creates={
            "kfold": [
                "models/trained/model.pt",
                "eval/report.json",
                "eval/pat_4/pat_4.png",
                "eval/fold_5/report.json",
                "eval/folds.json",
            ],
            "SCANS": ["results/index.html", "results/c1/prediction.json", "results/c2/prediction.json"],
            "study.yaml": ["study/report.html"],
        },
    ),
    "bundles/instance_encoder/docs/README.md": Page(
        start="bundles/instance_encoder",
        setup=page_setup.scans_and_slides,
        skip={
            "python -m monai.bundle download_large_files": (
                "downloads 14 MB",
                "tests/bundles/test_demo_weights.py",
            )
        },
        replace={**FOUR, "HOST:29500": "localhost:$PORT", "torchrun --nnodes 2": "srun torchrun --nnodes 2"},
        before={"torchrun --nnodes 2": "export SLURM_NNODES=2"},
        append={
            "configs/encode.yaml --dataset_dir DIR": [*FLAT, "--hounsfield", "false"],
            "configs/inference.yaml --input SCAN": FLAT,
            "hugging_face.yaml": [*HUGGING_FACE, "--spatial_size", "32", "--hounsfield", "false"],
            "slides.yaml": [*HUGGING_FACE, "--tile_size", "32"],
        },
        creates={"--input SCAN": ["eval/c7.h5"], "slides.yaml": ["DIR/features/*/s1.h5", "eval/features.json"]},
    ),
    "scripts/experiments/mnist_bags/README.md": Page(
        start="scripts/experiments/mnist_bags",
        setup=page_setup.handwritten,
        append={
            "train.yaml": [*EPOCH, "--num_train", "16", "--num_val", "8"],
            "evaluate.yaml": ["--num_test", "8", "--num_samples", "2"],
        },
        creates={"evaluate.yaml": ["models/model.pt", "models/attention_stability.json", "eval/report.json"]},
    ),
    "scripts/experiments/semi_synthetic/README.md": Page(
        start="scripts/experiments/semi_synthetic",
        append={"train.yaml": [*EPOCH, "--num_train", "50"], "evaluate.yaml": ["--num_test", "50"]},
        creates={"evaluate.yaml": ["models/model.pt"]},
    ),
    "bundles/wsi_mil/docs/README.md": SLIDES._replace(start="bundles/wsi_mil"),
}
