"""Program for the server's interpreter: changes datastores in several ways, and prints what is left as JSON."""

import contextlib
import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

from monai_mil_ext.apps.label.scan_labels import is_labeled, label_of
from monai_mil_ext.apps.label.server import ArchiveStore, LabelStore

LABELS = 390
CT, OWN, READER = "1.2.1", "1.2.2", "1.2.3"
SEGS = {"Modality": "SEG"}


def open_store(folder):
    return LabelStore(str(folder), extensions=["*.nii.gz", "*.nii"], auto_reload=False)


def score(folder, scored):
    """Another process, which writes scores of all images over and over until labels are given."""
    store = open_store(folder)
    scored.write_text("begun")
    number = 0
    while not Path(f"{scored}.stop").exists():
        for image in store.list_images():
            store.update_image_info(image, {"uncertainty": number})
        time.sleep(0.02)
        number += 1


def lost_labels(folder):
    """Labels given by two threads while another process scores: those lost, and images without a score."""
    for image in ("a", "b"):
        (folder / f"{image}.nii.gz").write_bytes(b"x")
    scored = folder.parent / "scored"
    other = os.fork()  # spares the imports; there are no threads yet
    if not other:
        score(folder, scored)
        os._exit(0)
    store, lost = open_store(folder), []
    while not scored.exists():
        time.sleep(0.01)
    given = {"a": [], "b": []}

    def give(image):
        for label in range(LABELS // 2):
            before = store.get_image_info(image).get("bag_label")
            lost.extend([label] * (label > 0 and before != label - 1))
            store.update_image_info(image, {"bag_label": label})
            given[image].append(label)

    threads = [threading.Thread(target=give, args=(image,)) for image in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Path(f"{scored}.stop").touch()
    os.waitpid(other, 0)
    infos = [open_store(folder).get_image_info(image) for image in given]
    return {
        "given": sum(map(len, given.values())),
        "lost": len(lost),
        "last": [info["bag_label"] for info in infos],
        "unscored": sum("uncertainty" not in info for info in infos),
    }


def full_disk(folder):
    """Labels after changes on a disk with room for 3 kB files only, and after a start from a damaged file."""
    store = open_store(folder)
    label = folder.parent / "a.nii.gz"
    label.write_bytes(b"first")
    store.save_label("a", str(label), "final", {})
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    label.write_bytes(b"second" * 1000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    failed = 0
    for change in (
        lambda: store.update_image_info("a", {"note": "x" * 4000, "bag_label": 0}),
        lambda: store.save_label("a", str(label), "final", {}),
    ):
        try:
            change()
        except OSError:
            failed += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    left = [store.get_image_info("a")["bag_label"], Path(store.get_label_uri("a", "final")).read_bytes().decode()]
    file = folder / "datastore_v2.json"
    file.write_text(file.read_text()[:100])
    again = open_store(folder)
    restored = [again.get_image_info(image)["bag_label"] for image in ("a", "b")]
    return {"failed": failed, "left": left, "restored": restored}


def entry(uid, **values):
    tags = {"0020000D": "1.2", "0020000E": uid, **values}
    return {tag: {"vr": "UI", "Value": [value]} for tag, value in tags.items()}


class Archive:
    """An archive with a CT, a segmentation by this package and one of a reader's, and what was asked of it."""

    base_url = "http://archive"

    def search_for_series(self, search_filters):
        series = search_filters.get("SeriesInstanceUID")
        found = [OWN, READER] if search_filters.get("Modality") == "SEG" else [CT]
        return [entry(uid) for uid in found if series in (None, uid)]

    def retrieve_series_metadata(self, study, series):
        reference = {"0020000E": {"vr": "UI", "Value": [CT]}}
        maker = {"vr": "LO", "Value": ["monai_mil_ext" if series == OWN else "Hospital"]}
        return [{"00080070": maker, "00081115": {"vr": "SQ", "Value": [reference]}}]


def status(change, *arguments):
    try:
        change(*arguments)
    except Exception as error:
        return getattr(error, "status_code", type(error).__name__)
    return 200


def archive(folder):
    table = folder / "labels.sqlite"

    def start(cache):
        return ArchiveStore(Archive(), {"Modality": "CT"}, str(folder / cache), table=table)

    store = start("cache")
    store.check_info = lambda info: None
    (folder / "label.json").write_text('{"bag_label": 1}')
    (folder / "mask.nii.gz").write_bytes(b"no mask")
    (folder / "scan.nii.gz").write_bytes(b"scan")
    answers = {
        "readers": [one["0020000E"]["Value"][0] for one in store._client.search_for_series(search_filters=SEGS)],
        "outside": status(store.get_image_uri, "../../ct/data/pat_3"),
        "unknown": status(store.get_image_uri, "1.2.99"),
        "segmentation": status(store.get_image_uri, READER),
        "upload": status(store.add_image, CT, str(folder / "scan.nii.gz"), {}),
        "info": status(store.update_image_info, CT, {"reader": "x"}),
        "file": status(store.save_label, CT, str(folder / "label.json"), "final", {}),
    }
    LabelStore.add_image(store, CT, str(folder / "scan.nii.gz"), {})  # as if fetched
    os.makedirs(Path(store._datastore.image_path()) / CT)
    (Path(store._datastore.image_path()) / CT / "1.dcm").write_bytes(b"no object")
    answers["mask"] = status(store.save_label, CT, str(folder / "mask.nii.gz"), "final", {})
    store.update_image_info(CT, {"bag_label": None})
    LabelStore.save_label(store, CT, str(folder / "mask.nii.gz"), "final", {})  # as if the archive had taken it
    answers["labeled by a mask"] = [is_labeled(store, CT), label_of(store, CT, ["no tumor", "tumor"])]
    store.update_image_info(CT, {"bag_label": 1})
    answers["after the cache"] = start("new cache").get_image_info(CT)["bag_label"]
    return answers


def offline(folder):
    """Whether an app on an archive starts without a network and without the tool for segmentations."""
    from monailabel.config import settings

    from monai_mil_ext.apps.label import LabelApp

    settings.MONAI_LABEL_DICOMWEB_CACHE_PATH = str(folder / "offline")
    (folder / "app").mkdir()
    os.environ["PATH"] = ""
    app = LabelApp(str(folder / "app"), "http://127.0.0.1:9/dicom-web", {})
    return [type(app.datastore()).__name__, (folder / "app" / "labels.sqlite").exists()]


def signed_in(_):
    """Status of a token signed with the key of the realm, and of one signed with another."""
    import jwt
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from monailabel.endpoints.user import auth

    from monai_mil_ext.apps.label.server import accept_signed_tokens

    keys = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
    public = keys[0].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    auth.settings = SimpleNamespace(**{**auth.settings.model_dump(), "MONAI_LABEL_AUTH_ENABLE": True})
    auth.get_public_key = lambda realm: public
    accept_signed_tokens(auth)
    claims = {"preferred_username": "ann", "realm_access": {"roles": ["monailabel-user"]}}
    tokens = [jwt.encode(claims, key, algorithm="RS256") for key in keys]
    tokens.append(jwt.encode({**claims, "exp": 1}, keys[0], algorithm="RS256"))
    names = []
    for token in tokens:
        with contextlib.suppress(auth.InvalidTokenError):
            names.append(auth.from_token(token).username)
    return names


if __name__ == "__main__":
    root = Path(sys.argv[1])
    (root / "studies").mkdir()
    steps = {"labels": lost_labels, "disk": full_disk}
    found = {name: step(root / "studies") for name, step in steps.items()}
    found |= {step.__name__: step(root) for step in (archive, signed_in, offline)}
    print("\n" + json.dumps(found))  # noqa: T201
    sys.stdout.flush()
    os._exit(0)  # observers of folders may run on
