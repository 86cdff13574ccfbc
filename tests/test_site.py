"""The documentation as a site: every page and link of it, and a page for every public name."""

import html
import json
import re
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import monai_mil_ext

ROOT = Path(__file__).parents[1]
ROOMS = "docs/reference/generated/monai_mil_ext."
WIDE = ["docs/index", "README", "docs/benchmarks", "docs/semi-synthetic", "docs/how-to/slides", "docs/reference/api"]
WIDE += [f"{ROOMS}{name}" for name in ("transforms", "networks.nets.QGMIL", "losses.NormalGuidanceLoss")]
# elements that are wider than their place (a shadow apart), and neither they nor what holds them can be scrolled
LOOK = """<!doctype html><body data-cut="[]"><script>
const scrolls = e => ["auto", "scroll"].includes(e.ownerDocument.defaultView.getComputedStyle(e).overflowX);
const held = e => e && e.tagName !== "ARTICLE" && (scrolls(e) || held(e.parentElement));
const block = e => e.ownerDocument.defaultView.getComputedStyle(e).display !== "inline";
const cut = page => [...page.querySelectorAll("article *")].filter(e => e.scrollWidth > e.clientWidth + 9
  && e.clientWidth > 1 && block(e) && !held(e)).map(e => `${e.tagName} ${e.textContent.trim().slice(0, 60)}`);
(async () => {
  const found = [];
  for (const name of PAGES) {
    const frame = document.createElement("iframe");
    frame.style.width = "WIDTHpx"; frame.src = name + ".html";
    await new Promise(done => { frame.onload = done; document.body.append(frame); });
    const page = frame.contentDocument, root = page.documentElement;
    page.querySelectorAll(".headerlink").forEach(e => e.remove());  // shown beside a line, on hover
    if (root.scrollWidth > root.clientWidth) found.push(`${name}: the page is ${root.scrollWidth} wide`);
    found.push(...cut(page).map(text => `${name}: ${text}`));
    frame.remove();
  }
  document.body.dataset.cut = JSON.stringify(found);
  document.body.dataset.seen = PAGES.length;
})();
</script></body>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "-b", "html", ".", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow(buys="the site builds without a warning and has a page for every public name")
def test_it_builds_without_a_warning_and_has_every_page_and_public_name(site):
    (link,) = re.findall(r'href="([^"]+)"', (site / "index.html").read_text())
    assert (site / link).exists()
    for pattern in ("docs/**/*.md", "bundles/*/docs/README.md", "scripts/experiments/*/README.md"):
        for page in ROOT.glob(pattern):
            assert (site / page.relative_to(ROOT)).with_suffix(".html").exists(), page
    parts = [getattr(monai_mil_ext, name) for name in monai_mil_ext.__all__ if name != "networks"]
    parts.append(monai_mil_ext.networks.nets)
    names = [
        f"{part.__name__.removeprefix('monai_mil_ext.')}.{name}"
        for part in parts
        for name in part.__all__
        if callable(getattr(part, name))
        and not (isinstance(getattr(part, name), type) and issubclass(getattr(part, name), Exception))
    ]
    assert len(names) > 100
    assert [name for name in names if not (site / f"{ROOMS}{name}.html").exists()] == []
    rooms = "".join(page.read_text() for page in (site / ROOMS).parent.glob("*.html"))
    assert "<math" in rooms  # formulas need no script, and nothing that a page loads is elsewhere
    assert re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', rooms) == []


def chromium(folder, *words):
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command = ["chromium", *flags, f"--user-data-dir={folder}/chrome", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.browser
@pytest.mark.slow(buys="no line of a page is cut off, on a screen or a phone")
@pytest.mark.parametrize("width", [420, 1400])
def test_no_line_is_cut_off(site, width, tmp_path):
    look = LOOK.replace("PAGES", json.dumps(WIDE)).replace("WIDTH", str(width))
    (site / f"look_{width}.html").write_text(look)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/look_{width}.html"
        page = chromium(tmp_path, "--virtual-time-budget=100000", "--dump-dom", address)
        server.shutdown()
    assert f'data-seen="{len(WIDE)}"' in page
    assert json.loads(html.unescape(re.search('data-cut="([^"]*)"', page)[1])) == []


@pytest.mark.browser
@pytest.mark.slow(buys="the search finds a page without a server")
def test_the_search_needs_no_server(site, tmp_path):
    address = f"{(site / 'search.html').as_uri()}?q=NormalGuidanceLoss"
    page = chromium(tmp_path, "--virtual-time-budget=20000", "--dump-dom", address)
    assert 'href="docs/reference/generated/monai_mil_ext.losses.NormalGuidanceLoss.html' in page
