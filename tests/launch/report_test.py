import json

import pytest

from launch import chips, report
from launch.hlo import BETWEEN_SLICES, Collective, Program
from launch.report import Memory, Report

GIB = 2**30


def made(**changes):
    values = {
        "what": "a coder",
        "topology": chips.parse("v5e:16x16", 2),
        "mesh": {"data": 512, "fsdp": 1, "tensor": 1},
        "rows": 1024,
        "attention": "splash",
        "seconds": 61.0,
        "memory": Memory(2 * GIB, 5 * GIB, GIB),
        "products": 197e12 * 0.1,
        "kernels": 197e12 * 0.01,
        "program": Program(
            (
                Collective("all-reduce", "f32", 256, 100_000_000, 2),
                Collective("all-reduce", "f32", 256, 50_000_000, 1),
                Collective(BETWEEN_SLICES, "bf16", 2, 31_250_000, 1),
            ),
            cycles=300_000_000,
            loops=(12,),
            unknown_loops=0,
        ),
    }
    return Report(**(values | changes))


def test_times_follow_from_the_chip_and_its_network():
    found = made()
    ring = 2 * 255 / 256 * 250e6 / 200e9
    assert found.collectives == pytest.approx(ring + 0.01)
    assert found.estimate == pytest.approx(0.2 + 0.02 + found.collectives)
    assert found.floor == pytest.approx(0.11)  # products and kernels, at the peak
    assert made(products=0.0, kernels=0.0).floor == pytest.approx(found.collectives)
    assert found.hbm_share == pytest.approx(8 / 15.75)


def test_budgets():
    assert made().faults(0.6, 0.1) == []
    assert made().faults(0.0, 0.0) == []
    hbm, network = made().faults(0.5, 0.01)
    assert hbm == "peak is 50.8% of memory, budget 50.0%"
    assert network.startswith("collectives are") and network.endswith("budget 1.0%")
    (unknown,) = made(program=Program((), 1, (), 2)).faults(0.0, 0.0)
    assert unknown.startswith("2 loops of unknown length")
    assert made(error="Ran out of memory").faults(0.0, 0.0) == ["Ran out of memory"]


def test_lines_and_json_say_the_same():
    found = made()
    text, numbers = "\n".join(found.lines()), json.loads(json.dumps(found.as_json()))
    assert "2 × v5e:16x16: 512 chips, mesh data 512 × fsdp 1 × tensor 1" in text
    assert "2 documents a chip" in text and "= 8.00 GiB of 15.75 (51%)" in text
    assert "docs.cloud.google.com/tpu/docs/v5e" in text
    first, second = numbers["collectives"]
    assert (first["kind"], first["mb"], first["times"]) == (BETWEEN_SLICES, 31.25, 1)
    assert (second["kind"], second["mb"], second["times"]) == ("all-reduce", 250.0, 3)
    assert numbers["ok"] and numbers["memory"]["peak"] == 8 * GIB
    failed = made(error="Ran out of memory")
    assert failed.as_json()["ok"] is False
    assert failed.lines()[-1] == "does not compile (61 s): Ran out of memory"


def test_side_by_side():
    lines = report.table([made(), made(error="Ran out of memory")])
    assert len({line.count("|") for line in lines}) == 1
    assert "| 512, 1, 1 | 2 | 8.00 (51%) |" in lines[2]
    assert "Ran out of memory" in lines[3]
