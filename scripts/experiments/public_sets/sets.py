"""The public feature sets: where they are, what belongs to them, and the settings of their study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SETS", "PublicSet"]

SCAN_METHODS = ("ABMIL", "ABMIL+NG", "ASMIL", "QGMIL", "TransMIL", "WindowMIL")
SLIDE_METHODS = ("ABMIL", "ASMIL", "QGMIL", "TransMIL")  # tiles have no order, which +NG and WindowMIL need
# of ACMIL, AEM and ASMIL; they keep the best epoch of the validation part and do not stop early
SLIDE_TRAINING = {
    "epochs": 50,
    "patience": 50,
    "learning_rate": 1e-4,
    "weight_decay": 1e-5,
    "batch_size": 1,
    "batch_instances": 100_000,
    "max_instances": 100_000,
}


@dataclass(frozen=True)
class PublicSet:
    """A public feature set.

    Args:
        title: what it holds.
        repo: name of the data set on the hub.
        license: license that its authors state.
        layout: ``"torchmil"`` (a ``.npy`` file a bag and kind, in archives, with ``splits.csv``) or ``"groups"`` (one
            HDF5 file with a group a slide).
        files: names of its files, with ``{encoder}``.
        gigabytes: size of the features of each encoder, estimated from their width or as others state it, or None; the
            first is the default.
        methods: methods of the study.
        training: settings of the training that differ from those of a study.
        site: name of the function of cohort.py that finds patient, site and part from the name of a slide.
        instances: what the instances are called.
    """

    title: str
    repo: str
    license: str
    layout: str
    files: Sequence[str]
    gigabytes: Mapping[str, float | None]
    methods: Sequence[str]
    training: Mapping[str, Any] = field(default_factory=dict)
    site: str = ""
    instances: str = "tile"

    @property
    def encoders(self) -> list[str]:
        """Names of the encoders, the default first."""
        return list(self.gigabytes)

    def names(self, encoder: str) -> list[str]:
        """Return the names of the files for one encoder, the small ones first."""
        return [name.format(encoder=encoder) for name in self.files]


TORCHMIL = "features_{encoder}.tar.gz"
OF_SLIDES = ("splits.csv", "labels.tar.gz", "patch_labels.tar.gz", "coords.tar.gz", TORCHMIL)
AEM = {"repo": "dazhangyu123/AEM-dataset", "license": "apache-2.0", "layout": "groups", "methods": SLIDE_METHODS}
AEM |= {"training": SLIDE_TRAINING}

SETS: dict[str, PublicSet] = {
    "rsna_ich": PublicSet(
        title="1,149 head CTs of RSNA 2019 with a label for each slice",
        repo="torchmil/RSNA_ICH_MIL",
        license="apache-2.0",
        layout="torchmil",
        files=("splits.csv", "labels.tar.gz", "slice_labels.tar.gz", TORCHMIL),
        gigabytes={"resnet50": 0.33, "vit_b_32": 0.12, "resnet18": 0.08},
        methods=SCAN_METHODS,
        instances="slice",
    ),
    "camelyon16": PublicSet(
        title="399 slides of CAMELYON16 with a label for each tile",
        repo="torchmil/Camelyon16_MIL",
        license="apache-2.0",
        layout="torchmil",
        files=OF_SLIDES,
        gigabytes={"UNI": 13.0, "resnet50_bt": 26.0},
        methods=SLIDE_METHODS,
        training=SLIDE_TRAINING,
    ),
    "panda": PublicSet(
        title="slides of PANDA, cancer or not, with a label for each tile",
        repo="torchmil/PANDA_MIL",
        license="apache-2.0",
        layout="torchmil",
        files=OF_SLIDES,
        gigabytes={"UNI": None, "resnet50_bt": None},
        methods=SLIDE_METHODS,
        training=SLIDE_TRAINING,
    ),
    "camelyon16_aem": PublicSet(
        title="CAMELYON16, the features of AEM",
        files=("CAMELYON16/patch_feats_pretrain_{encoder}.h5",),
        gigabytes={"medical_ssl": 7.22, "natural_supervised": 9.58, "path-clip-L-336": 4.16},
        site="camelyon16_slide",
        **AEM,
    ),
    "camelyon17_aem": PublicSet(
        title="CAMELYON17 (five centers), the features of AEM",
        files=("CAMELYON17/patch_feats_pretrain_{encoder}.h5",),
        gigabytes={"medical_ssl": 4.08, "natural_supervised": 5.41, "path-clip-L-336": 4.71},
        site="camelyon17_slide",
        **AEM,
    ),
}
