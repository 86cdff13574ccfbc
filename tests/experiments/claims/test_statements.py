"""Tests of the claims and of the variants that they compare."""

from itertools import chain


def test_every_claim_compares_known_variants_that_differ():
    from experiments.claims.settings import variants
    from experiments.claims.statements import statements

    for statement in statements():
        assert set(statement.plus).isdisjoint(statement.minus)
        assert set(chain(statement.plus, statement.minus)) <= set(variants())
    assert len({(s.paper, s.claim) for s in statements()}) == len(statements())


def test_pairs_of_a_part_differ_in_nothing_else():
    """In both sides of a part's claim, every other part is on equally often."""
    from experiments.claims.settings import ASMIL_PARTS, QGMIL_PARTS
    from experiments.claims.statements import statements

    parts = {*QGMIL_PARTS, *ASMIL_PARTS}
    found = [s for s in statements() if s.claim.startswith(tuple(f"the {part} raises macro F1" for part in parts))]
    found += [s for s in statements() if s.claim.startswith(("NSF raises", "token drop raises"))]
    found = [s for s in found if " of " not in s.claim]
    assert len(found) == 7
    for statement in found:
        counts = [
            {part: sum(part in name.split(" with ")[1].split(", ") for name in side) for part in parts}
            for side in (statement.plus, statement.minus)
        ]
        assert [part for part in parts if counts[0][part] != counts[1][part]] == [
            next(part for part in parts if part in statement.claim)
        ]


def test_the_first_wave_has_whole_claims_and_the_last_is_transmil():
    from experiments.claims.runs import waves
    from experiments.claims.settings import variants

    first, second, last = waves()
    assert sorted(chain(first, second, last)) == sorted(variants())
    assert last == ["TransMIL", "TransMIL + anchor"]
    assert "QG-MIL with no part" in first
