"""The commands that pages show: their configs are there, and what they override is in one of them."""

import re
import shlex
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("bundles/*/docs/*.md"))]
PAGES += sorted(ROOT.glob("scripts/experiments/*/*.md"))
FOLDERS = [*(ROOT / "bundles").iterdir(), *(ROOT / "scripts" / "experiments").iterdir()]
BUNDLES = {path.name: path for path in sorted(FOLDERS) if (path / "configs" / "train.yaml").exists()}
BUNDLES |= {"instance_encoder": ROOT / "bundles" / "instance_encoder"}
CARDS = {name: next(path.glob("**/README.md")) for name, path in BUNDLES.items()}
OF_MONAI = {"config_file", "meta_file", "args_file", "logging_file", "tracking", "run_id", "init_id", "final_id"}


def commands(page):
    """Words of each `monai.bundle run` of a page, its lines joined."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL) + re.findall(
        r"`([^`\n]*monai\.bundle run[^`\n]*)`", text
    )
    lines = [
        line.split("monai.bundle run", 1)[1]
        for block in blocks
        for line in block.splitlines()
        if "monai.bundle run" in line
    ]
    return [shlex.split(re.sub(r"\s#\s.*", "", line)) for line in lines]  # shlex would end at the # of a#b, too


def configs_of(words):
    """Names of the files of `--config_file`, which are one or a list."""
    given = words[words.index("--config_file") + 1]
    return re.findall(r"configs/\w+\.yaml", given)


def keys(bundle, names):
    """All that the configs of a bundle have together at their top."""
    found = set()
    for name in names:
        found |= {str(key).lstrip("+") for key in ConfigParser.load_config_file(BUNDLES[bundle] / name)}
    return found | {key.split("#")[0] for key in found}


def options(words):
    return {re.split(r"[#=]", word[2:])[0] for word in words if re.match(r"--[a-z]", word)} - OF_MONAI


SHOWN = [(page, words) for page in PAGES for words in commands(page) if "--config_file" in words]


def test_there_are_commands():
    assert len(SHOWN) > 40


@pytest.mark.parametrize(
    ("page", "words"), SHOWN, ids=[f"{p.parent.parent.name}-{p.stem}-{i}" for i, (p, _) in enumerate(SHOWN)]
)
def test_a_shown_command_overrides_what_is_there(page, words):
    names = configs_of(words)
    assert names, words
    own = [name for name, card in CARDS.items() if card == page] or list(BUNDLES)
    fitting = [bundle for bundle in own if all((BUNDLES[bundle] / name).exists() for name in names)]
    assert fitting, f"no bundle has {names}"
    missing = [options(words) - keys(bundle, names) for bundle in fitting]
    assert set() in missing, f"not in {names}: {min(missing, key=len)}"
    assert "None" not in words  # MONAI drops it: it has to be '$None'


@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_told_override_is_in_a_config(bundle):
    spans = re.findall(r"`(--[^`]+)`", CARDS[bundle].read_text())
    found = keys(bundle, [f"configs/{path.name}" for path in (BUNDLES[bundle] / "configs").glob("*.yaml")])
    told = set().union(*(options(shlex.split(span)) for span in spans))
    assert told - found == set()
    assert [span for span in spans if re.search(r" None\b", span)] == []
