"""Tests of the inference of wsi_mil on files, folders and tables, valid and broken."""

import csv
import json
import logging
import os
import re

import numpy as np
import pytest
import tifffile
import torch
from monai.data import WSIReader
from PIL import Image

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.data import InstanceSource, SlideFile, TileGrid
from monai_mil_ext.networks.nets import ABMIL, ASMIL, QGMIL
from monai_mil_ext.transforms import TileBag
from monai_mil_ext.utils.exceptions import root_cause
from tests.bundles.wsi import ENCODER, F, content, start, write_cohort, write_features, write_small_slide
from tests.utils.dask_clusters import cluster

NETS = {"qgmil": QGMIL, "asmil": ASMIL}
SLIDES = ENCODER


def weights(folder, network="qgmil", in_features=12, class_names=None, level="bag", **values):
    """A network as training leaves it, untrained."""
    torch.manual_seed(0)
    net = NETS[network](in_features=in_features, num_classes=2, hidden_size=16)
    source = InstanceSource(width=in_features)
    task = {
        "kind": "classification",
        "num_classes": 2,
        "class_names": class_names,
        "activation": "softmax",
        "level": level,
    }
    save_model(folder, net, sources=[source], task=task, **values)
    return net.eval()


def infer(tmp_path, where, *overlays, **override):
    paths = {"ckpt_dir": str(tmp_path / "m"), "output_dir": str(tmp_path / "out"), "input": str(where)}
    paths |= {"case_id": "slide"}
    workflow = start("inference", *overlays, kind="infer", **{**paths, **override})
    workflow.run()
    workflow.finalize()
    return workflow


def prediction(tmp_path, case):
    return json.loads((tmp_path / "out" / case / "prediction.json").read_text())


def times(tmp_path):
    return {path.parent.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/prediction.json")}


def results(tmp_path):
    with (tmp_path / "out" / "results.csv").open() as file:
        return {row["case_id"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("network", NETS)
def test_wsi_mil_inference_makes_prediction_and_map_in_one_forward_pass(network, tmp_path, monkeypatch):
    calibration = {"temperature": 2.0}
    net = weights(tmp_path / "m", network, class_names=["benign", "malignant"], calibration=calibration)
    path = write_small_slide(tmp_path / "a.tif")
    calls, real = [], NETS[network].forward_bag

    def counted(self, x, mask=None):
        """Other scores at each call, as a network with dropout on would give."""
        calls.append(x)
        output = real(self, x, mask)
        order = torch.arange(x.shape[1]).roll(len(calls))
        return output._replace(attention=((order + 1.0) / (order + 1.0).sum())[None, :, None])

    monkeypatch.setattr(NETS[network], "forward_bag", counted)
    infer(tmp_path, path, "slides", **SLIDES)
    assert len(calls) == 1
    report = prediction(tmp_path, "slide")
    tiles = TileBag(TileGrid(32, mpp=0.5))(path)
    pixels = tiles.bag[:]
    features = torch.nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(1)
    torch.testing.assert_close(calls[0][0], features)
    with torch.no_grad():
        expected = (real(net, features[None]).logits / 2).softmax(1)[0]
    torch.testing.assert_close(torch.tensor(report["probability"]), expected)
    assert report["class_names"][report["prediction"]] == report["predicted_class"]
    assert (report["num_tiles"], report["tile_size"], report["slide_size"]) == (24, 32.0, [320, 256])
    # what this one call said of each tile, in every file
    order = torch.arange(24).roll(1) + 1.0
    attention = order / order.sum()
    geo = json.loads((tmp_path / "out/slide/slide.geojson").read_text())
    weight = [tile["properties"]["measurements"]["attention"] for tile in geo["features"]]
    np.testing.assert_allclose(weight, attention, rtol=1e-6)
    assert [tile["geometry"]["coordinates"][0][0] for tile in geo["features"]] == tiles.coords.tolist()
    best = int(attention.argmax())
    assert [report["top_tiles"][0][k] for k in "xy"] == tiles.coords[best].tolist()
    assert report["top_tiles"][0]["ratio"] == pytest.approx(float(attention[best]) * 24, rel=1e-5)
    assert report["bottom_tiles"][0]["attention"] == pytest.approx(float(attention.min()))
    with tifffile.TiffFile(tmp_path / "out/slide/slide.tif") as file:
        about = json.loads(file.pages[0].description)
    assert (about["scaling"], about["downsample"]) == ("ratio", 8.0)
    assert (about["low"], about["high"]) == pytest.approx((24 * float(attention.min()), 24 * float(attention.max())))
    heat = SlideFile(tmp_path / "out/slide/slide.tif")
    assert (heat.size, heat.mpp) == ((40, 32), pytest.approx(4.0))
    for picture in ("slide.png", "slide_tiles.png"):
        with Image.open(tmp_path / "out/slide" / picture) as image:
            assert min(image.size) > 300


@pytest.mark.parametrize("num_workers", [0, 1])
def test_wsi_mil_inference_opens_a_slide_once(num_workers, tmp_path, monkeypatch):
    """With a worker, the main process opens the slide once more, for the tiles that are shown."""
    weights(tmp_path / "m")
    path, log, open_file = write_small_slide(tmp_path / "a.tif"), tmp_path / "opened.txt", WSIReader.read

    def counted(self, data, **options):
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return open_file(self, data, **options)

    monkeypatch.setattr(WSIReader, "read", counted)
    infer(tmp_path, path, "slides", num_workers=num_workers, **SLIDES)
    processes = log.read_text().split()
    assert len(processes) == len(set(processes)) == 1 + num_workers
    assert (tmp_path / "out/slide/slide_tiles.png").is_file()


def test_wsi_mil_inference_of_features_writes_prediction_and_map(tmp_path):
    net, draw = weights(tmp_path / "m", in_features=F), np.random.default_rng(0)
    features = draw.normal(size=(7, F)).astype(np.float32)
    write_features(tmp_path / "in" / "a.h5", features)
    infer(tmp_path, tmp_path / "in" / "a.h5", case_id="c1", scaling="percentile", top_k=2)
    files = ["c1.geojson", "c1.tif", "c1_map.json", "prediction.json", "viewer"]
    assert sorted(p.name for p in (tmp_path / "out" / "c1").iterdir()) == files
    report = prediction(tmp_path, "c1")
    with torch.no_grad():
        output = net.forward_bag(torch.from_numpy(features)[None])
    torch.testing.assert_close(torch.tensor(report["probability"]), output.logits.softmax(1)[0])
    top = output.attention[0, :, 0].sort(descending=True)
    np.testing.assert_allclose([tile["attention"] for tile in report["top_tiles"]], top.values[:2], rtol=1e-5)
    highest = pytest.approx(float(top.values[0]) * 7, rel=1e-5)
    about = {"attention": "mean", "scaling": "percentile", "downsample": 16.0, "nearly_even": True}
    assert report["map"] == {**about, "highest_ratio": highest}
    assert len(report["top_tiles"]) == len(report["bottom_tiles"]) == 2


def test_wsi_mil_inference_without_coordinates_gives_the_reason(tmp_path):
    weights(tmp_path / "m", in_features=F)
    features = np.zeros((3, F), dtype=np.float32)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "plain.npy", features)
    write_features(
        tmp_path / "in" / "micrometers.h5", features, unit="um", tile_size=112.0, spatial_shape=np.array([512, 384])
    )
    infer(tmp_path, tmp_path / "in")
    assert prediction(tmp_path, "plain")["map"]["missing"].startswith("the features come without coordinates")
    assert "`slide_mpp` is not known" in prediction(tmp_path, "micrometers")["map"]["missing"]
    infer(tmp_path, tmp_path / "in", slide_mpp=0.5)
    report = prediction(tmp_path, "micrometers")
    assert (report["tile_size"], report["top_tiles"][0]["x"]) == (224.0, report["top_tiles"][0]["x"])
    assert {tile["x"] for tile in report["top_tiles"]} == {0.0, 128.0, 256.0}


def test_wsi_mil_inference_continues_after_a_broken_slide(tmp_path):
    weights(tmp_path / "m")
    folder = tmp_path / "in"
    folder.mkdir()
    write_small_slide(folder / "good.tif")
    write_small_slide(folder / "no_mpp.tif", mpp=None)
    write_small_slide(folder / "glass.tif", color=(243, 242, 244))
    (folder / "broken.svs").write_bytes(b"no slide")
    write_small_slide(folder / "Größe 1.tif")
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        infer(tmp_path, folder, "slides", **SLIDES)
    assert "every slide must get a prediction, got none for 3 of 5" in str(root_cause(error.value))
    status = {case: row["status"] for case, row in results(tmp_path).items()}
    assert status["good"] == "done"
    assert status["glass"] == "empty"
    assert status["no_mpp"].startswith("unreadable: `slide` must state its mpp")
    assert status["broken"].startswith("unreadable: `slide` must be a slide that can be read")
    odd = next(case for case in status if case.startswith("slide_"))
    assert status[odd] == "done"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["slides"], report["done"], sum(report["failed"].values())) == (5, 2, 3)


def test_wsi_mil_inference_takes_the_magnification_of_a_slide_without_resolution(tmp_path):
    weights(tmp_path / "m")
    infer(tmp_path, write_small_slide(tmp_path / "a.tif", mpp=None), "slides", case_id="a", magnification=20, **SLIDES)
    assert prediction(tmp_path, "a")["slide_mpp"] == 0.5


def test_wsi_mil_inference_infers_missing_slides_and_all_with_other_settings(tmp_path):
    weights(tmp_path / "m", in_features=F)
    folder = write_cohort(tmp_path / "data", patients=2) / "features"

    infer(tmp_path, folder)
    first = times(tmp_path)
    (tmp_path / "out" / "s1_0" / "prediction.json").unlink()
    infer(tmp_path, folder)
    second = times(tmp_path)
    assert {case for case in first if first[case] != second[case]} == {"s1_0"}
    assert {row["status"] for row in results(tmp_path).values()} == {"done"}
    infer(tmp_path, folder, scaling="percentile")
    assert all(time > second[case] for case, time in times(tmp_path).items())


def test_wsi_mil_inference_names_neither_patient_nor_path(tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    weights(tmp_path / "m")
    folder = tmp_path / "Secretname_folder"
    folder.mkdir()
    write_small_slide(folder / "Secretname_1.tif", description="Secretname in the description")
    (folder / "Secretname_2.svs").write_bytes(b"no slide")
    (folder / "slides.csv").write_text(
        "case_id,image,patient,slide_mpp\nc1,Secretname_1.tif,Secretname,0.5\nc2,Secretname_2.svs,Secretname,\n"
    )
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        infer(tmp_path, folder / "slides.csv", "slides", **SLIDES)
    assert results(tmp_path)["c1"]["status"] == "done"
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == 9 + 6 + 2  # the viewer, and its library with the license
    printed = [*(path.name for path in files), *(path.read_bytes().decode("latin-1") for path in files)]
    printed += [record.getMessage() for record in caplog.records if not record.exc_info]
    secrets = ["Secretname", str(folder)]
    assert [word for word in secrets for text in printed if word in text] == []
    for file in files:
        if file.suffix in (".json", ".csv", ".geojson", ".html", ".tif", ".png", ".jpg"):
            assert b"research use only" in file.read_bytes(), file.name
    assert "research use only" in capfd.readouterr().out


@pytest.mark.slow(buys="training straight from slides, without stored features")
def test_wsi_mil_slides_config_trains_from_a_table_of_slides(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    rows = ["bag,patient,label"]
    for i in range(12):
        write_small_slide(data / f"s{i}.tif", color=((196, 120, 170), (120, 60, 140))[i % 2])
        rows.append(f"s{i}.tif,p{i},{i % 2}")
    (data / "cohort.csv").write_text("\n".join(rows))
    paths = {"dataset_dir": str(data), "ckpt_dir": str(tmp_path / "m"), "output_dir": str(tmp_path / "e")}
    small = {"num_folds": 3, "epochs": 10, "batch_size": 4, "learning_rate": 0.003, "num_samples": 20}
    workflow = start("train", "slides", **paths, **SLIDES, **small)
    workflow.run()
    assert content(workflow, "validate#evaluator").state.best_metric == 1.0
    assert len(list((data / "features").rglob("*.h5"))) == 12
    (data / "some.csv").write_text("case_id,image\na,s0.tif\nb,s1.tif\n")
    infer(tmp_path, data / "some.csv", "slides", **SLIDES)
    benign, malignant = (prediction(tmp_path, case)["probability"][1] for case in "ab")
    assert malignant > benign


@pytest.mark.parametrize("head", [0, "predicted"])
def test_wsi_mil_inference_shows_the_attention_of_a_class(tmp_path, head):
    features = torch.randn(6, F, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    nets = (ABMIL(F, 2, hidden_size=16, per_class=True).eval() for _ in range(50))
    net = next(net for net in nets if net(features[None]).argmax() == 1)
    save_model(tmp_path / "m", net, sources=[InstanceSource(width=F)])
    write_features(tmp_path / "a.h5", features.numpy())
    infer(tmp_path, tmp_path / "a.h5", head=head)
    report = prediction(tmp_path, "slide")
    with torch.no_grad():
        attention = net.forward_bag(features[None]).attention[0]
    number = report["prediction"] if head == "predicted" else head
    assert (report["prediction"], report["map"]["attention"]) == (1, number)
    assert report["top_tiles"][0]["attention"] == pytest.approx(float(attention[:, number].max()), rel=1e-5)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"head": 3}, "`head` must be from 0 to 0, got 3"),
        ({"head": "predicted"}, "`head` 'predicted' must have attention for each of the classes, got 1 weights"),
        ({"class_names": ["a", "b", "c"]}, "`class_names` must be one for each of 2 classes"),
    ],
)
def test_wsi_mil_inference_refuses_an_option_that_fits_no_slide(tmp_path, option, message):
    weights(tmp_path / "m", in_features=F)
    data = write_cohort(tmp_path / "data", patients=2)
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        infer(tmp_path, data / "features", **option)
    assert message in str(root_cause(error.value)) or message in str(error.value.__cause__)
    assert not (tmp_path / "out").exists()


def test_wsi_mil_inference_of_one_file_after_the_other(tmp_path):
    weights(tmp_path / "m", in_features=F)
    for i, n in ((3, 7), (4, 5)):
        write_features(tmp_path / f"s{i}.h5", np.random.default_rng(i).normal(size=(n, F)).astype(np.float32))
        infer(tmp_path, tmp_path / f"s{i}.h5", case_id=None)
    (last,) = results(tmp_path)
    assert re.fullmatch("case-[0-9a-f]{12}", last)
    assert prediction(tmp_path, last)["num_tiles"] == 5
    assert sorted(json.loads(path.read_text())["num_tiles"] for path in tmp_path.glob("out/*/prediction.json")) == [
        5,
        7,
    ]
    infer(tmp_path, tmp_path / "s3.h5")
    infer(tmp_path, tmp_path / "s4.h5")
    assert prediction(tmp_path, "slide")["num_tiles"] == 5


@pytest.mark.parametrize("change", ["file", "temperature", "top_k", "pictures", "class_names"])
def test_wsi_mil_inference_predicts_again_what_has_changed(tmp_path, change):
    weights(tmp_path / "m", in_features=F)
    folder = write_cohort(tmp_path / "data", patients=2) / "features"
    infer(tmp_path, folder)
    options = {"top_k": 2, "pictures": [], "class_names": ["a", "b"]}
    override = {change: options[change]} if change in options else {}
    if change == "file":
        write_features(folder / "s1_0.h5", np.ones((3, F), dtype=np.float32))
    if change == "temperature":
        weights(tmp_path / "m", in_features=F, calibration={"temperature": 2.0})
    first = {path.parent.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/prediction.json")}
    infer(tmp_path, folder, **override)
    again = {
        case for case, time in first.items() if (tmp_path / f"out/{case}/prediction.json").stat().st_mtime_ns > time
    }
    assert again == ({"s1_0"} if change == "file" else set(first))


def test_wsi_mil_inference_continues_after_features_of_another_width(tmp_path):
    weights(tmp_path / "m", in_features=F)
    folder = tmp_path / "data"
    for name, width in (("a", F), ("b", 2 * F), ("c", F)):
        write_features(folder / f"{name}.h5", np.ones((3, width), dtype=np.float32))
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        infer(tmp_path, folder)
    assert "got none for 1 of 3" in str(root_cause(error.value))
    status = {case: row["status"] for case, row in results(tmp_path).items()}
    assert status == {"a": "done", "b": f"unreadable: features must have {F} columns, got {2 * F}.", "c": "done"}


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), ValueError("`x` must be a bag")])
def test_wsi_mil_inference_continues_after_an_error_of_the_network(tmp_path, monkeypatch, error):
    weights(tmp_path / "m", in_features=F)
    folder, real = tmp_path / "data", QGMIL.forward_bag
    for name, tiles in (("a", 3), ("b", 5), ("c", 4)):
        write_features(folder / f"{name}.h5", np.ones((tiles, F), dtype=np.float32))

    def fail(self, x, mask=None):
        if x.shape[1] == 5:
            raise error
        return real(self, x, mask)

    monkeypatch.setattr(QGMIL, "forward_bag", fail)
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        infer(tmp_path, folder)
    status = {case: row["status"] for case, row in results(tmp_path).items()}
    assert (status.pop("a"), status.pop("c")) == ("done", "done")
    assert status["b"].startswith("failed: ")
    assert str(error) in status["b"]


@pytest.mark.parametrize("error", [TypeError("a mistake"), KeyboardInterrupt()])
def test_wsi_mil_inference_leaves_a_table_if_the_program_is_to_blame(tmp_path, monkeypatch, error):
    weights(tmp_path / "m", in_features=F)
    folder, real = tmp_path / "data", QGMIL.forward_bag
    for name, tiles in (("a", 3), ("b", 5), ("c", 4)):
        write_features(folder / f"{name}.h5", np.ones((tiles, F), dtype=np.float32))

    def fail(self, x, mask=None):
        if x.shape[1] == 5:
            raise error
        return real(self, x, mask)

    monkeypatch.setattr(QGMIL, "forward_bag", fail)
    with pytest.raises((RuntimeError, KeyboardInterrupt)):
        infer(tmp_path, folder)
    status = {case: row["status"] for case, row in results(tmp_path).items()}
    assert status == {"a": "done", "b": "not reached", "c": "not reached"}
    monkeypatch.setattr(QGMIL, "forward_bag", real)
    infer(tmp_path, folder)
    assert {row["status"] for row in results(tmp_path).values()} == {"done"}


def test_wsi_mil_inference_of_patients(tmp_path):
    """All slides of a patient are one bag, as in a training at that level, which the record states."""
    net = weights(tmp_path / "m", in_features=F, level="patient")
    draw = np.random.default_rng(0)
    features = {name: draw.normal(size=(n, F)).astype(np.float32) for name, n in (("s1", 5), ("s2", 3), ("s3", 4))}
    for name, values in features.items():
        write_features(tmp_path / "job" / "20x" / "features_uni_v1" / f"{name}.h5", values)
    table = tmp_path / "clam.csv"
    table.write_text("slide_id,label,case_id\ns1,0,p\ns3,1,q\ns2,0,p\nlost,0,r\n")
    columns = {"columns#bag": "slide_id", "columns#patient": "case_id"}
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        infer(tmp_path, table, **columns)
    assert "every slide must get a prediction, got none for 1 of 3" in str(root_cause(error.value))
    with torch.no_grad():
        output = net.forward_bag(torch.from_numpy(np.concatenate([features["s1"], features["s2"]]))[None])
    report = prediction(tmp_path, "p")
    torch.testing.assert_close(torch.tensor(report["probability"]), output.logits.softmax(1)[0])
    assert "several slides of a patient" in report["map"]["missing"]
    assert [slide["num_tiles"] for slide in report["slides"]] == [5, 3]
    assert report["slides"][1]["attention"] == pytest.approx(float(output.attention[0, 5:, 0].sum()), rel=1e-5)
    assert sum(slide["attention"] for slide in report["slides"]) == pytest.approx(1, rel=1e-5)
    assert (tmp_path / "out" / "q" / "q.geojson").is_file()  # one slide has a map
    rows = results(tmp_path)
    assert rows["r"]["status"].startswith("unreadable: slide 1 of 1: `image` must be the path or the name of a file")
    first = times(tmp_path)
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        infer(tmp_path, table, **columns)
    assert times(tmp_path) == first
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        infer(tmp_path, table, level="bag", **columns)
    assert "`level` must be patient, as in the training, got bag" in str(root_cause(error.value))


def test_wsi_mil_inference_of_patients_from_slides(tmp_path):
    """A slide of glass beside another is passed over; a patient of glass only is empty."""
    weights(tmp_path / "m", level="patient")
    (tmp_path / "slides" / "deep").mkdir(parents=True)
    for name, options in (("a", {}), ("glass", {"color": (243, 242, 244)}), ("b", {"color": (120, 60, 140)})):
        write_small_slide(tmp_path / "slides" / "deep" / f"{name}.tif", **options)
    table = tmp_path / "slides" / "t.csv"
    write_small_slide(tmp_path / "slides" / "glass_2.tif", color=(243, 242, 244))
    table.write_text("bag,patient,slide_mpp\na,p,0.5\nglass,p,\nb,p,\nglass_2.tif,q,\n")
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        infer(tmp_path, table, "slides", case_id=None, **SLIDES)
    report = prediction(tmp_path, "p")
    assert [slide["num_tiles"] for slide in report["slides"]] == [24, 0, 24]
    assert "several slides" in report["map"]["missing"]
    assert {case: row["status"] for case, row in results(tmp_path).items()} == {"p": "done", "q": "empty"}


def test_wsi_mil_inference_on_dask_workers_writes_the_same_results(tmp_path):
    weights(tmp_path / "m")
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_features(tmp_path / "in" / f"{name}.h5", torch.rand(7, 12).numpy())
    infer(tmp_path, tmp_path / "in", case_id=None)
    serial = results(tmp_path), [prediction(tmp_path, case) for case in results(tmp_path)]
    (tmp_path / "out").rename(tmp_path / "serial")
    with cluster({}) as address:
        infer(tmp_path, tmp_path / "in", case_id=None, scheduler=address)
    assert [prediction(tmp_path, case) for case in results(tmp_path)] == serial[1]
    assert results(tmp_path).keys() == serial[0].keys()
    assert len(serial[1]) == 2
