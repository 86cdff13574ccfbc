"""Tests of the page of readers and its requests."""

import html
import json
import re
import subprocess

import pytest

from monai_mil_ext.apps.label.labeller import Labeller, ReaderLog

from .page_server import HOSTILE, App, start

SCRIPT = """
;(async () => {
  const until = async test => { while (!test()) await pause(20); };
  const seen = {}, press = key => document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const settled = async () => { await pause(30); await until(() => !state.busy); };
  await until(() => byId("cases").children.length === 3);
  seen.order = [...byId("cases").children].map(item => item.firstChild.firstChild.textContent);
  press("n"); await settled();
  seen.without_name = byId("status").textContent;
  byId("reader").value = "Ann";
  press("n"); await settled();
  await until(() => byId("picture").complete && byId("picture").naturalWidth);
  seen.opened = [byId("case").textContent, byId("place").textContent, byId("picture").naturalWidth];
  seen.sides = byId("left").textContent + byId("right").textContent;
  press("ArrowUp"); seen.up = byId("place").textContent;
  press("2"); await settled();
  seen.labeled = [byId("status").textContent, byId("count").textContent];
  press("n"); await settled();
  press("a"); await settled();
  seen.answer = [byId("answer").textContent, byId("place").textContent];
  byId("answer").querySelectorAll("button")[1].click(); seen.chip = byId("place").textContent;
  byId("classes").children[0].click(); await settled();
  seen.after = byId("status").textContent;
  seen.send = [byId("send").disabled, byId("send").title];
  byId("train").click(); await settled(); await until(() => !state.busy);
  seen.trained = byId("status").textContent;
  byId("cases").lastChild.scrollIntoView();
  [...byId("cases").querySelectorAll("button")].find(one => one.textContent.startsWith("<img")).click();
  await settled();
  seen.hostile = [byId("case").textContent, document.title, document.querySelectorAll("img").length];
  document.body.dataset.seen = JSON.stringify(seen);
})().catch(error => { document.body.dataset.seen = JSON.stringify({ error: String(error) }); });
"""
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture
def page(tmp_path, http_errors):
    return Labeller(App(tmp_path), ReaderLog(tmp_path / "labels.sqlite"))


def post(page, path, **values):
    return json.loads(page("POST", path, {"reader": "Ann", "image": "unsure", **values}).content)


def test_labeller_lists_the_most_uncertain_case_first_and_labeled_ones_last(page):
    post(page, "/label", image="unsure", label="tumor")
    found = json.loads(page("GET", "/cases", {}).content)
    assert [case["id"] for case in found["cases"]] == ["sure", HOSTILE, "unsure"]
    assert found["cases"][-1] == {"id": "unsure", "labeled": True, "label": "tumor", "uncertainty": 0.9}
    assert (found["classes"], found["can_train"], found["has_archive"]) == (["no tumor", "tumor"], True, False)
    assert "prediction" not in json.dumps(found)  # a reader who labels must not see it


def test_labeller_logs_whether_the_answer_was_shown_before_the_label(page):
    assert post(page, "/open") == {"slices": 4, "sides": ["R", "L"], "answer_shown": False}
    assert post(page, "/label", label="tumor")["answer_shown"] is False
    assert post(page, "/answer")["top_slices"] == [3, 1]
    assert post(page, "/label", label="no tumor")["answer_shown"] is True
    assert post(page, "/label", label=None, reader="Bob")["answer_shown"] is False
    log = [{k: v for k, v in entry.items() if k != "time"} for entry in json.loads(page("GET", "/log", {}).content)]
    assert [entry["event"] for entry in log] == ["opened", "label", "answer", "label", "label"]
    assert log[2]["model"] == {"name": "scan_mil", "version": "1", "weights": "abc"}
    expected = {"reader": "Ann", "image": "unsure", "event": "label", "label": "no tumor", "before": "tumor"}
    assert log[3] == {**expected, "answer_shown": True}
    assert page.app.store.infos["unsure"]["bag_label"] is None


def test_labeller_serves_a_page_without_external_resources(page):
    files = [page("GET", path, {}) for path in ("", "/labeller.js", "/labeller.css")]
    assert [reply.kind for reply in files] == ["text/html", "text/javascript", "text/css"]
    assert (
        re.findall(rb"https?:|innerHTML|insertAdjacentHTML|style=|onclick=\"", b"".join(f.content for f in files)) == []
    )
    post(page, "/open")
    assert page("GET", "/picture", {"image": "unsure", "slice": "3"}).content.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("method", "path", "values", "status", "match"),
    [
        ("GET", "/other", {}, 404, "the path must be one of the labeller"),
        ("GET", "/../app.py", {}, 404, "the path must be one of the labeller"),
        ("GET", "/label", {}, 404, "the path must be one of the labeller"),
        ("POST", "/label", [1], 400, "the request must be a JSON object"),
        ("POST", "/label", {"image": "unsure", "label": "tumor"}, 400, "`reader` must be a name of at most 60"),
        ("POST", "/label", {"reader": "A\n", "image": "../x"}, 404, "`image` must be one of the studies, got '../x'"),
        ("POST", "/open", {"reader": "a\nb", "image": "unsure"}, 400, "`reader` must be a name"),
        ("POST", "/label", {"reader": "A", "image": "sure", "label": "x"}, 400, r"`label` must be one of \['no tumor'"),
        ("POST", "/send", {"reader": "A", "image": "sure"}, 400, "the studies must lie in a DICOMweb archive"),
        ("GET", "/picture", {"image": "sure", "slice": "0"}, 404, "`image` must be an opened one, got 'sure'"),
        ("GET", "/picture", {"image": "sure", "slice": "-1"}, 400, "`slice` must be the number of a slice, got '-1'"),
    ],
)
def test_labeller_refuses_other_requests(page, http_errors, method, path, values, status, match):
    with pytest.raises(http_errors, match=match) as error:
        page(method, path, values)
    assert error.value.status_code == status
    assert page.log.entries() == []
    assert page.app.requests == []


def test_labeller_sends_no_answer_of_a_model_that_nobody_has_trained(tmp_path, http_errors):
    page = Labeller(App(tmp_path, "http://127.0.0.1:9/dicom-web"), ReaderLog(tmp_path / "labels.sqlite"))
    page.app.bundles[0].is_demonstration = True
    with pytest.raises(http_errors, match="the model must be trained") as error:
        post(page, "/send")
    assert error.value.status_code == 409
    assert page.log.entries() == []


@pytest.mark.browser
@pytest.mark.slow(buys="a reader labels, looks at an answer and trains in a browser, by keys and by buttons")
def test_labeller_in_a_browser(tmp_path, http_errors):
    server, _, log = start(tmp_path, SCRIPT)
    address = f"http://127.0.0.1:{server.server_port}/labeller"
    command = ["chromium", *FLAGS, f"--user-data-dir={tmp_path}/chrome", "--virtual-time-budget=60000", "--dump-dom"]
    try:
        page = subprocess.run([*command, address], capture_output=True, text=True, check=True, timeout=120).stdout
    finally:
        server.shutdown()
    seen = json.loads(html.unescape(re.search('data-seen="([^"]*)"', page)[1]))
    assert seen["order"] == ["unsure", "sure", HOSTILE]
    assert seen["without_name"] == "Enter your name first."
    assert seen["opened"] == ["unsure", "slice 3 of 4", 512]
    assert seen["sides"] == "RL"
    assert seen["up"] == "slice 4 of 4"
    assert seen["labeled"] == ["Labeled tumor.", "1 of 3 labeled"]
    assert seen["answer"] == ["no tumor 0.20, tumor 0.801: slice 42: slice 2", "slice 4 of 4, rank 1"]
    assert seen["chip"] == "slice 2 of 4, rank 2"
    assert seen["after"] == "Labeled no tumor, after the answer was shown."
    assert seen["send"] == [True, "The studies lie in a folder, so there is no archive to send to."]
    assert seen["trained"].startswith("Trained and scored")
    assert seen["hostile"] == [HOSTILE, "Label scans", 1]
    labels = [(entry["image"], entry["answer_shown"]) for entry in log.entries() if entry["event"] == "label"]
    assert labels == [("unsure", False), ("sure", True)]
