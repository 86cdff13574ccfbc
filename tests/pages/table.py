"""How each page's commands are run: on what, how much shorter, and which are left out and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from . import given

__all__ = ["PAGES", "Page"]


class Page(NamedTuple):
    """How the bash blocks of a page are run.

    Attributes:
        start: folder of the repository that the page begins in.
        given: makes what is there before.
        python: how many of the page's python blocks come first, because its commands read what they write.
        before: text of a block -> what is typed before that block.
        instead: text -> what is typed in its place.
        more: text of a command -> words put at its end, so that it takes a second.
        makes: text of a block -> files that are there after it, from the folder that it ends in.
        left: beginning of a line -> why it is not run, and which file does it or tests it.
    """

    start: str = "."
    given: Callable[[Path], None] | None = None
    python: int = 0
    before: dict[str, str] = {}
    instead: dict[str, str] = {}
    more: dict[str, list[str]] = {}
    makes: dict[str, list[str]] = {}
    left: dict[str, tuple[str, str]] = {}


FOUR = {"--nproc_per_node 4": "--nproc_per_node 2"}
# no encoder's weights: the pixels of a slice are its features
PIXELS = ["--encoder", "{'_target_':'torch.nn.Flatten'}", "--in_features", "64", "--spatial_size", "8"]
FLAT = "{'_target_':'monai_mil_ext.networks.encoders.InstanceEncoder','net':{'_target_':'torch.nn.Flatten'},"
FLAT += "'input_spec':{'_target_':'monai_mil_ext.networks.encoders.InputSpec','size':[8,8]},'output':'identity'}"
FLAT = ["--encoder", FLAT, "--spatial_size", "8"]
EPOCH = ["--epochs", "1"]
# drawn again for the intervals of an evaluation
FEW = {"evaluate.yaml": ["--num_samples", "20"]}
FEW_OF_FOLDS = {"kfold.yaml": ["--num_samples", "20"]}
HUGGING_FACE = ["--encoder_name", "$ENCODER", "--local_files_only", "True"]
SMALL_NET = ["--network_def#hidden_size", "16"]
SLIDE_TRAINING = {
    "train.yaml": ["--epochs", "2", "--batch_size", "4", "--num_samples", "20", *SMALL_NET],
    "inference.yaml": SMALL_NET,
    "slides.yaml": ["--encoder_name", "$ENCODER", "--tile_size", "32"],
}
# a rule that counts no epoch of so few would leave nothing to go on with
PROTOCOL = ["epochs=2", "batch_size=8", "num_samples=20", "below_train=False"]
GRID = ["--grid", "learning_rate=[0.1]", "l1=[0.0001]"]
PROTOCOL_OF_PIXELS = [*PROTOCOL, "encoder={_target_: torch.nn.Flatten}", "in_features=64", "spatial_size=8"]

SLIDES = Page(
    given=given.slides_and_features,
    instead={"for fold in 0 1 2 3 4;": "for fold in 0 4;"},
    more=SLIDE_TRAINING,
    before={
        "slides.yaml": "mv DIR TABLES; mv SLIDES DIR; rm -r models eval",
        "kfold.yaml": "mv DIR SLIDES; mv TABLES DIR; rm -r models eval",
    },
    makes={
        "--input FEATURES": ["models/model.pt", "eval/report.json", "eval/f0/prediction.json", "eval/f2/f2.geojson"],
        "--input SLIDE": ["eval/slide/prediction.json", "eval/slide/slide_tiles.png"],
        "kfold.yaml": ["eval/folds.json", "eval/fold_4/bags.csv", "models/model.pt"],
    },
)

PAGES = {
    "README.md": Page(
        left={
            "scripts/quickstart": ("the quickstart's page has it, too", "docs/quickstart.md"),
            "scripts/test": ("it runs this test", ".ci/run"),
            "pip install torch": ("installs", "tests/test_wheel.py"),
            "pip install .": ("installs", "tests/test_wheel.py"),
        },
    ),
    "docs/quickstart.md": Page(
        given=given.quickstart,
        more={"train.yaml": EPOCH, "--test_patient pat_4": PIXELS, "--input data/pat_4": PIXELS, **FEW},
        makes={"scripts/quickstart": ["runs/quickstart/digits/inference/digits_0/digits_0.png"]},
    ),
    "docs/how-to/many-gpus.md": Page(
        start="bundles/bag_classifier",
        given=given.bag_cohort,
        before={
            "#SBATCH --nodes": "cd $REPO; export SLURM_NNODES=2 SLURM_JOB_ID=7 SLURM_JOB_NAME=mil SLURM_JOB_NODELIST=n",
            "#SBATCH --array": "cd $REPO; export SLURM_ARRAY_TASK_ID=3",
        },
        instead={**FOUR, ":29500": ":$PORT", "/shared/": "$STUDY/"},
        more={"train.yaml": EPOCH, "study/cohort": [*PIXELS, "--test_patient", "digits_0"]},
        makes={
            "=1 torchrun": ["models/fold_0/model.pt"],
            "srun": ["$STUDY/runs/mil/model.pt"],
            "--array": ["models/fold_3/model.pt"],
        },
    ),
    "docs/how-to/monai-label.md": Page(
        left={"": ("needs the environment of MONAI Label", "tests/apps/test_scans_over_http.py")}
    ),
    "docs/how-to/protocols.md": Page(
        given=given.labeled_scans,
        more={
            "protocol.yaml": [*PIXELS, "--epochs", "2", "--batch_size", "8", "--below_train", "False"],
            "--input SCAN": PIXELS,
            "--protocol published": ["--seeds", "1001", "--gallery", "1", *GRID, "--set", *PROTOCOL_OF_PIXELS],
            "--protocol modern": ["--grid", "learning_rate=[0.001]", "--set", *PROTOCOL_OF_PIXELS],
        },
        before={"eval_one": "for name in one two; do cp -r runs/published/ABMIL/1001/*/test eval_$name; done"},
        makes={
            "--input SCAN": ["models/published/model.pt", "models/modern/model.pt", "eval/case/prediction.json"],
            "ct_protocol": ["runs/published.html", "runs/modern/TransMIL/1001/*/run.json"],
            "reproduce report": ["page.html"],
        },
    ),
    "docs/how-to/rsna.md": Page(
        given=given.rsna,
        instead={"/where/the/files/are": "$REPO/rsna"},
        more={
            "source_dir=": [
                *PROTOCOL,
                "in_features=128",
                "spatial_size=224",
                "encoder#weights=$REPO/vit.pth",
                'encoder#sha256=""',
                *GRID,
            ]
        },
        makes={"scripts.rsna": ["data/report.json", "data/intensity_3001.json", "runs/published.html"]},
    ),
    "docs/how-to/scan-results.md": Page(
        start="bundles/scan_mil",
        given=given.trained_on_scans,
        more={"inference.yaml": PIXELS},
        makes={
            "pat_4": ["eval/pat_4/prediction.json"]
            + [f"eval/pat_4/pat_4{end}" for end in ("_scores.nii.gz", ".png", ".html", ".gif", "_seg.dcm", "_sr.dcm")],
            "scans.csv": ["results/results.csv", "results/report.json", "results/b/prediction.json"],
        },
    ),
    "docs/how-to/slide-predictions.md": Page(
        start="bundles/wsi_mil",
        given=given.slides_to_answer,
        more={text: SLIDE_TRAINING[text] for text in ("inference.yaml", "slides.yaml")},
        makes={"slide.svs": ["out/f1/prediction.json", "eval/c1/c1.png", "eval/c1/c1_tiles.png", "eval/c1/c1.tif"]},
    ),
    "docs/how-to/zoo.md": Page(
        start="bundles/bag_classifier", makes={"onnx_export": ["models/model.ts", "models/model.onnx"]}
    ),
    "docs/mnist-bags.md": Page(
        given=given.attention_files,
        makes={"scripts/reproduce": ["pictures/attention_mass.png", "pictures/attention_stability.png"]},
    ),
    "docs/tutorials/ct.md": Page(
        start="bundles/scan_mil",
        more={"train.yaml": EPOCH, **FEW},
        makes={
            "scripts.prepare": ["$STUDY/data/cohort.json"],
            "evaluate.yaml": ["$STUDY/guidance_0/report.json", "$STUDY/guidance_1/instances.csv"],
            "inference.yaml": ["$STUDY/results/guidance_1/guidance_1.png"],
        },
    ),
    "docs/tutorials/slides.md": Page(
        python=3,
        more={"train.yaml": ["--epochs", "2", "--val_interval", "1"], "evaluate.yaml": ["--num_samples", "20"]},
        makes={"train.yaml": ["$STUDY/eval/report.json"], "new.tif": ["$STUDY/results/new/new_tiles.png"]},
    ),
    "bundles/bag_classifier/docs/README.md": Page(
        start="bundles/bag_classifier",
        instead={"for fold in 0 1 2 3 4;": "for fold in 0 4;"},
        more={"train.yaml": EPOCH, **FEW, **FEW_OF_FOLDS},
        makes={
            "torchrun": ["models/fold_0/model.pt", "eval/fold_3/report.json", "eval/folds.json", "eval/predictions.csv"]
        },
    ),
    "bundles/scan_mil/docs/README.md": Page(
        start="bundles/scan_mil",
        given=given.phantoms,
        instead={"for fold in 0 1 2 3 4 5;": "for fold in 0 5;"},
        more={"train.yaml": [*PIXELS, *EPOCH], "inference.yaml": PIXELS, **FEW, **FEW_OF_FOLDS},
        makes={
            "kfold": [
                "models/model.pt",
                "eval/report.json",
                "eval/pat_4/pat_4.png",
                "eval/fold_5/report.json",
                "eval/folds.json",
            ]
        },
    ),
    "bundles/instance_encoder/docs/README.md": Page(
        start="bundles/instance_encoder",
        given=given.scans_and_slides,
        left={
            "python -m monai.bundle download_large_files": (
                "fetches 14 MB from outside",
                "tests/bundles/test_demo_weights.py",
            )
        },
        instead={**FOUR, "HOST:29500": "localhost:$PORT", "torchrun --nnodes 2": "srun torchrun --nnodes 2"},
        before={"torchrun --nnodes 2": "export SLURM_NNODES=2"},
        more={
            "configs/encode.yaml --dataset_dir DIR": FLAT,
            "configs/inference.yaml --input SCAN": FLAT,
            "hugging_face.yaml": [*HUGGING_FACE, "--spatial_size", "32"],
            "slides.yaml": [*HUGGING_FACE, "--tile_size", "32"],
        },
        makes={"--input SCAN": ["eval/c7.h5"], "slides.yaml": ["DIR/features/*/s1.h5", "eval/features.json"]},
    ),
    "scripts/experiments/mnist_bags/README.md": Page(
        start="scripts/experiments/mnist_bags",
        given=given.handwritten,
        more={
            "train.yaml": [*EPOCH, "--num_train", "16", "--num_val", "8"],
            "evaluate.yaml": ["--num_test", "8", "--num_samples", "2"],
        },
        makes={"evaluate.yaml": ["models/model.pt", "models/attention_stability.json", "eval/report.json"]},
    ),
    "scripts/experiments/semi_synthetic/README.md": Page(
        start="scripts/experiments/semi_synthetic",
        more={"train.yaml": [*EPOCH, "--num_train", "50"], "evaluate.yaml": ["--num_test", "50"]},
        makes={"evaluate.yaml": ["models/model.pt"]},
    ),
    "bundles/wsi_mil/docs/README.md": SLIDES._replace(start="bundles/wsi_mil"),
}
