"""Parts of MONAI Label, as far as the app uses them, for tests without ``monailabel``."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np


class Datastore:
    """Images with their info and a final label each."""

    def __init__(self, folder, info=None, final=None, images=("a",)):
        self.folder, self.info, self.file = folder, info or {}, folder / "a.json"
        self.tags = {} if final is None else {"final": "a"}
        self.file.write_text(final or "")
        self.infos = {image: dict(self.info) for image in images}

    def list_images(self):
        return list(self.infos)

    def get_image_info(self, image):
        return self.infos[image]

    def update_image_info(self, image, info):
        self.infos[image].update(info)

    def get_image_uri(self, image):
        path = self.folder / f"{image}.nii"
        path.write_bytes(image.encode())
        return str(path) if image in self.infos else ""

    def get_labels_by_image_id(self, image):
        return self.tags

    def get_label_uri(self, image, tag):
        return str(self.file)


class HTTPError(Exception):
    """Stand-in for FastAPI's HTTPException."""

    def __init__(self, status_code, detail):
        super().__init__(detail)
        self.status_code, self.detail = status_code, detail


class Bundle:
    """Bundle that infers at once: it writes the results that it was made with."""

    metadata = {"description": "Bundle."}
    name, class_names, is_demonstration = "bundle", ["benign", "malignant"], False

    def __init__(self, root, record=None, error=None):
        self.root, self.weights = Path(root), Path(root) / "models" / "model.pt"
        self.new_weights = self.weights
        self.record, self.error, self.calls = record, error, []

    def unseen(self):
        return {"pictures": [], "viewer": "none"}

    def infer(self, item, folder, *configs, **overrides):
        self.calls.append((dict(item), configs, overrides))
        if self.error:
            raise self.error
        results = Path(folder) / item["case_id"]
        results.mkdir()
        (results / "prediction.json").write_text(json.dumps(self.record))
        volume = nib.Nifti1Image(np.zeros((2, 2, 3), np.float32), np.diag([1.0, 1, 5, 1]))
        nib.save(volume, results / f"{item['case_id']}_scores.nii.gz")


def without_init(kind, **attributes):
    """Return an object whose base class needs ``monailabel``, with the given attributes instead of ``__init__``."""
    instance = object.__new__(kind)
    vars(instance).update(attributes)
    return instance
