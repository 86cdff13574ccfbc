"""Tests of a real MONAI Label server while models run: it answers, and loses no label."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
import requests
import torch
import yaml

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.networks.encoders import MobileNetV2Features
from monai_mil_ext.networks.nets import ABMIL

from .conftest import make_app, start_server

pytestmark = [pytest.mark.network, pytest.mark.slow(buys="the server answers, and no label is lost, while models run")]
SITE = {"spatial_size": 64, "hounsfield": False}
LONG, LABELED, UNLABELED = ("long_0", "long_1"), ("a", "b", "c", "d"), ("e", "f", "g", "h")
SLICES, PARALLEL, LABELS = 500, 8, 390
TASKS = {"scoring": "/scoring/uncertainty", "batch": "/batch/infer/scan_mil?images=unlabeled"}
TASKS |= {"train": "/train/scan_mil"}


def write_scan(path, slices, seed):
    draw = np.random.default_rng(seed)
    voxels = (draw.normal(size=(64, 64, slices)) * draw.uniform(10, 500, slices) - 300).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 2.0, 1.0])), path)


def random_encoder():
    """An encoder with random weights whose features differ, since its batch normalization knows some images."""
    encoder = MobileNetV2Features().train()
    for layer in encoder.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    encoder(torch.rand(8, 1, 64, 64) * torch.rand(8, 1, 1, 1))
    return encoder


@pytest.fixture(scope="module")
def busy(label_python, tmp_path_factory):
    """A server with an encoder that takes its time, and scans of 500 and of 8 slices."""
    folder = tmp_path_factory.mktemp("load")
    (folder / "site.yaml").write_text(yaml.safe_dump(SITE))
    bundle = make_app(folder / "mil", folder / "site.yaml")
    (bundle / "data").mkdir()
    (bundle / "models").mkdir()
    torch.manual_seed(0)
    torch.save(random_encoder().state_dict(), bundle / "data" / "mobilenet_v2.pth")
    net = ABMIL(in_features=2560, num_classes=2, hidden_size=128, dropout=0.25)
    save_model(bundle / "models", net, task={"num_classes": 2, "class_names": ["no tumor", "tumor"]})
    (folder / "studies").mkdir()
    for seed, name in enumerate((*LONG, *LABELED, *UNLABELED)):
        write_scan(folder / "studies" / f"{name}.nii", SLICES if name in LONG else 8, seed)
    with start_server(folder / "mil", folder / "studies", "--conf", "max_waiting", str(PARALLEL)) as server:
        yield server


def infer(server, image):
    return requests.post(f"{server.url}/infer/scan_mil?image={image}&output=json", timeout=300)


def said(answer):
    """What an answer says of the scan, without the time that it took."""
    return {key: answer.json()[key] for key in ("prediction", "slices", "top_slices", "uncertainty")}


def seconds_of_info(server, until):
    """Seconds of each request for /info/ until ``until`` is set."""
    times = []
    while not until.is_set():
        begin = time.monotonic()
        requests.get(f"{server.url}/info/", timeout=60).raise_for_status()
        times.append(time.monotonic() - begin)
        time.sleep(0.05)
    return times


def test_safe_app_answers_within_a_second_during_8_inferences_of_500_slices(busy):
    serial = {image: said(infer(busy, image)) for image in LONG}
    assert [len(serial[image]["slices"]) for image in LONG] == [SLICES] * 2
    assert serial[LONG[0]] != serial[LONG[1]]
    done, images = threading.Event(), [LONG[number % 2] for number in range(PARALLEL + 1)]
    with ThreadPoolExecutor(PARALLEL + 2) as pool:
        info = pool.submit(seconds_of_info, busy, done)
        answers = list(pool.map(lambda image: infer(busy, image), images))
        done.set()
    refused = [answer for answer in answers if answer.status_code == 503]
    assert [answer.headers["retry-after"] for answer in refused] == ["30"]  # one more than may wait
    good = [(image, answer) for image, answer in zip(images, answers, strict=True) if answer not in refused]
    assert [answer.status_code for _, answer in good] == [200] * PARALLEL
    assert all(said(answer) == serial[image] for image, answer in good)
    assert len(info.result()) > 5
    assert max(info.result()) < 1


class Reader:
    """Reader who gives labels over and over, and looks each time whether the label before is still there."""

    def __init__(self, server, images):
        self.server, self.images, self.lost, self.count = server, images, [], 0
        self.last = {}

    def info(self, image):
        return requests.get(f"{self.server.url}/datastore/image/info?image={image}", timeout=60).json()

    def give(self):
        image = self.images[self.count % len(self.images)]
        if image in self.last:
            found = self.info(image)
            self.lost += [(image, found)] * (self.last[image].items() > found.items())
        # at all times, half of the scans are of each class, so that a training has both
        label = (self.count // len(self.images) + self.images.index(image)) % 2
        self.last[image] = {"bag_label": label, "number": self.count}
        data = {"info": json.dumps(self.last[image])}
        self.server.put(f"/datastore/image/info?image={image}", data=data)
        self.count += 1

    def work(self, until):
        while not until.is_set():
            self.give()


def test_label_store_loses_no_label_under_scoring_batch_and_training(busy):
    readers = [Reader(busy, LABELED[:2]), Reader(busy, LABELED[2:])]
    for reader in readers * 2:
        reader.give()
    for image in LONG:
        busy.put(f"/datastore/image/info?image={image}", data={"info": json.dumps({"bag_label": LONG.index(image)})})
    for path in TASKS.values():
        busy.post(path, json={"max_epochs": 2, "model": "scan_mil"})
    done = threading.Event()
    with ThreadPoolExecutor(len(readers)) as pool:
        work = [pool.submit(reader.work, done) for reader in readers]
        try:
            states = wait_for_tasks(busy, lambda: sum(reader.count for reader in readers) >= LABELS)
        finally:
            done.set()
    assert [one.result() for one in work] == [None, None]
    assert states == dict.fromkeys(TASKS, "DONE")
    assert sum(reader.count for reader in readers) >= LABELS
    assert [loss for reader in readers for loss in reader.lost] == []
    for reader in readers:
        found = {image: reader.info(image) for image in reader.images}
        assert all(reader.last[image].items() <= found[image].items() for image in reader.images), found
        assert all("part" in found[image] for image in reader.images)  # what the training wrote is there too
    assert all("uncertainty" in readers[0].info(image) for image in UNLABELED)
    stored = {path.name for path in (busy.studies / "labels" / "original").iterdir()}
    assert stored == {f"{image}.nii" for image in UNLABELED}


def wait_for_tasks(server, is_enough):
    """Return the state of each task when all have ended, and enough labels are given."""
    end = time.monotonic() + 400
    while time.monotonic() < end:
        paths = {task: f"{server.url}/{'batch/infer' if task == 'batch' else task}/" for task in TASKS}
        states = {task: requests.get(path, timeout=60).json()["status"] for task, path in paths.items()}
        if "RUNNING" not in states.values() and is_enough():
            break
        time.sleep(0.5)
    return states
