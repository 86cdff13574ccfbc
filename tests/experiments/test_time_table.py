"""Tests of the table of the parts of a step."""


def test_parts_have_their_shares_beside_the_hardware():
    from experiments.time_table import time_table

    tried = {"what": "a trick", "value": 1.01, "interval": [0.98, 1.03]}
    result = {
        "rows": [
            {"what": "first", "parts": {"data": 0.001, "forward": 0.003}, "rate": 45e9},
            {"what": "second", "parts": {"forward": 0.002, "anchor": 0.002}, "rate": 90e9},
        ],
        "hardware": {"float32_gflops": 90.0, "bfloat16_gflops": 200.0, "copy_gb": 17.0},
        "tried": [tried | {"seconds": {"plain": {"user": 0.0101}, "changed": {"user": 0.01}}}],
        "machine": "M",
        "threads": 1,
        "load": [0.5, 1.5],
        "note": "N.",
    }
    lines = time_table(result).splitlines()
    assert lines[:8] == [
        "| part | first | second |",
        "| --- | --: | --: |",
        "| data | 1.0 ms (25 %) | - |",
        "| forward | 3.0 ms (75 %) | 2.0 ms (50 %) |",
        "| anchor | - | 2.0 ms (50 %) |",
        "| **all** | 4 ms | 4 ms |",
        "| GFLOP/s of forward, attention and backward | 45 | 90 |",
        "| share of the measured rate of matrices | 50 % | 100 % |",
    ]
    assert "On M, 1 thread, load 0.5 to 1.5. N." in lines
    assert lines[-1] == "| a trick | 1.01 | [0.98, 1.03] | 10.1 / 10 ms |"
