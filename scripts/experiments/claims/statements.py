"""Claims of the papers, and the contrast of variants that tests each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from .settings import ANCHOR, ASMIL_PARTS, QGMIL_PARTS, cell, read_settings

__all__ = ["Statement", "asmil_parts", "statements"]

FULL_QGMIL = cell("QG-MIL", dict.fromkeys(QGMIL_PARTS, True))
PLAIN_QGMIL = cell("QG-MIL", dict.fromkeys(QGMIL_PARTS, False))
FULL_ASMIL = cell("ASMIL", dict.fromkeys(ASMIL_PARTS, True))
PLAIN_ASMIL = cell("ASMIL", dict.fromkeys(ASMIL_PARTS, False))


@dataclass(frozen=True)
class Statement:
    """Claim of a paper, as a contrast of variants.

    Attributes:
        paper: method of the paper.
        claim: the claim.
        published: what was published, or a dash.
        metric: name of the measure.
        plus: variants whose mean is to be higher, or lower if ``sign`` is -1.
        minus: variants they are compared with.
        sign: claimed sign of the difference; 0 claims that it is not below the margin.
    """

    paper: str
    claim: str
    published: str
    metric: str
    plus: tuple[str, ...]
    minus: tuple[str, ...]
    sign: int = 1


def statements() -> list[Statement]:
    """Return all claims that the heads with lesions can test."""
    return [*_guidance(), *_asmil(), *_qgmil()]


def _guidance() -> Iterator[Statement]:
    guided = ("ABMIL + NG",)
    published = "head .736 to .871, chest .558 to .866, abdomen .526 to .663 (slice AUROC, ABMIL)"
    yield Statement("NG", "finds slices better than without it", published, "instance_auroc", guided, ("ABMIL",))
    published = "head .852 to .871 (slice AUROC)"
    yield Statement("NG", "finds slices better than the center", published, "instance_auroc", guided, ("center",))
    yield Statement("NG", "keeps the bag AUROC", "no loss", "bag_auroc", guided, ("ABMIL",), 0)


def asmil_parts(start: str = "") -> Iterator[Statement]:
    """Yield the claims on single parts of ASMIL: cells of the published ablation, in pairs that differ in one part.

    Args:
        start: start of the claims, which then name no published value.
    """
    both = (True, False)
    anchors = ((False, False), (True, False), (True, True))  # of the published ablation: none, anchor, anchor and NSF
    pairs = {
        ("the anchor", "+.035, +.031 with token drop"): [[(anchor, False, drop) for drop in both] for anchor in both],
        ("NSF", "+.018, +.022 with token drop"): [[(True, nsf, drop) for drop in both] for nsf in both],
        ("token drop", "+.016, +.012, +.016"): [[(*anchor, drop) for anchor in anchors] for drop in both],
    }
    for (part, published), (on, off) in pairs.items():
        claim, value = f"{start}{part} raises macro F1", "-" if start else published
        yield Statement("ASMIL", claim, value, "bag_macro_f1", _cells(on), _cells(off))


def _asmil() -> Iterator[Statement]:
    f1, both = "bag_macro_f1", (True, False)
    yield Statement(
        "ASMIL", "the three parts raise macro F1", "+.069 (BRACS, .712 to .781)", f1, (FULL_ASMIL,), (PLAIN_ASMIL,)
    )
    yield from asmil_parts()
    on, off = ([(anchored, anchored, drop) for drop in both] for anchored in both)
    stable = "attention of the anchor with NSF changes less from epoch to epoch"
    yield Statement("ASMIL", stable, "figures", "attention_jsd", _cells(on), _cells(off), -1)
    published = "up to +10.73 % (BRACS, ABMIL), relative"
    for name in read_settings()["plugins"]:
        claim = f"the anchor raises macro F1 of {name}"
        yield Statement("ASMIL", claim, published, f1, (name + ANCHOR,), (name,))


def _cells(combinations: Sequence[tuple[bool, ...]]) -> tuple[str, ...]:
    return tuple(cell("ASMIL", dict(zip(ASMIL_PARTS, on, strict=True))) for on in combinations)


def _qgmil() -> Iterator[Statement]:
    f1 = "bag_macro_f1"
    published = "+.061 to the baselines (six sets, the best variant of each)"
    yield Statement("QG-MIL", "macro F1 is above that of ABMIL", published, f1, (FULL_QGMIL,), ("ABMIL",))
    yield Statement("QG-MIL", "the four parts raise macro F1", "-", f1, (FULL_QGMIL,), (PLAIN_QGMIL,))
    combinations = [dict(zip(QGMIL_PARTS, on, strict=True)) for on in product((True, False), repeat=4)]
    for part in QGMIL_PARTS:
        on, off = (tuple(cell("QG-MIL", c) for c in combinations if c[part] is state) for state in (True, False))
        yield Statement("QG-MIL", f"the {part} raises macro F1, whatever the others", "-", f1, on, off)
    for part in QGMIL_PARTS:
        without = (cell("QG-MIL", {name: name != part for name in QGMIL_PARTS}),)
        yield Statement("QG-MIL", f"macro F1 is lower without the {part}", "-", f1, (FULL_QGMIL,), without)
    others = tuple(cell("QG-MIL", c) for c in combinations if not all(c.values()))
    claim = "macro F1 varies least over seeds with all parts"
    yield Statement("QG-MIL", claim, "lowest of all", "sd_macro_f1", (FULL_QGMIL,), others, -1)
    claim = "attention is more even than that of ABMIL"
    yield Statement("QG-MIL", claim, "in words", "entropy_ratio", (FULL_QGMIL,), ("ABMIL",))
    claim = "attention is more even with the four parts"
    yield Statement("QG-MIL", claim, "in words", "entropy_ratio", (FULL_QGMIL,), (PLAIN_QGMIL,))
