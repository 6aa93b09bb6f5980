"""A series of measurements made up from the cost model: ratios, warnings, fit, files and page. It times nothing."""

import csv
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from hpcfit.errors import InputError
from hpcfit.fit.cost import Accelerator, Load, Machine, Message, Part, step_cost
from hpcfit.scaling.files import check_mode, to_record, write_scaling
from hpcfit.scaling.measurement import Measurement, read_measurement
from hpcfit.scaling.page import page, print_tables
from hpcfit.scaling.summary import PREDICTED_RANKS, summarise

LOAD = Load(n_blocks=64, n_tiles=16, cell_bytes=1 << 19, tile_sums=6144, one_pass=True)
MACHINE = Machine(10e9, one_pass_bandwidth=16e9, sums_bandwidth=2e9, overhead=1e-3, latency=3e-6, network=6e9)
SUMMARY = {"frames": "4096 of 4096 in 8 shards", "reflections": "30000 in 30000 orbits of P1"}
STREAM = 30e9  # of a rank
CORES = 8  # of the only node


def measurement(ranks: int, grid: tuple[int, int], *, slower: float = 1.0, blocks: int = 64, host="n1", **more):
    """What a machine that obeys the model would measure, a factor slower in everything."""
    load = replace(LOAD, n_blocks=blocks)
    cost = step_cost(grid, load, MACHINE)
    read = more.pop("read", 0.0)
    times = {"total": cost.seconds + read, "compute": cost.passes, "reduce": cost.messages, "read": read}
    seconds = {name: slower * value for name, value in (times | {"other": cost.tiles + cost.overhead}).items()}
    rows = [
        {
            "host": host, "device": "cpu 0", "cores": [rank % CORES], "seconds": seconds,
            "bytes_passed": load.bytes_passed(grid) // ranks, "stream_bytes_per_second": STREAM / slower,
        }
        for rank in range(ranks)
    ]  # fmt: skip
    parts = [_part(*share) for share in [(16, 16, 2), (64, 4, 1), (1, 16, 2), (1, 1, 2)]] if ranks == 1 else []
    groups = {name: size for name, size in zip(("frames", "slices"), grid) if size > 1}
    messages = {name: [_message(size, n) for n in (8, 1 << 20)] for name, size in groups.items()}
    return Measurement(
        ranks, grid, 64 * blocks, load, rows, messages, parts, {"store": "abc"}, {"processor": "some processor"} | more
    )


def _part(blocks: int, tiles: int, passes: int) -> Part:
    load = replace(LOAD, n_blocks=blocks, n_tiles=tiles, one_pass=passes == 1)
    return Part(blocks, tiles, step_cost((1, 1), load, MACHINE).seconds, passes)


def _message(ranks: int, size: int) -> Message:
    load = Load(1, 1, 0, size // 8)
    large = step_cost((ranks, 1), load, replace(MACHINE, latency=0.0)).messages
    return Message(ranks, size, large + MACHINE.latency * {2: 1, 4: 2, 16: 4}[ranks])


def series(*grids, mode="strong", slow=(1.0, 1.5, 1.2), **options):
    """Three repeats, each slowed down by the same factor on all numbers of ranks."""
    measured = [
        {number: measurement(f * s, (f, s), slower=slower, **options) for number, slower in enumerate(slow, 1)}
        for f, s in grids
    ]
    return summarise(mode, SUMMARY, LOAD, measured, _accelerator), measured


def _accelerator(share: float) -> Accelerator:
    return Accelerator(memory=3e12, share=share, network=25e9, latency=5e-6)


@pytest.fixture(scope="module")
def strong():
    return series((1, 1), (2, 1), (1, 2), (2, 2), slow=(1.0, 1.0, 1.0))


def test_speed_up_is_paired_so_that_a_slow_repeat_cancels():
    scaling, _ = series((1, 1), (4, 1))
    one, four = (step_cost(grid, LOAD, MACHINE).seconds for grid in ((1, 1), (4, 1)))
    row = scaling.rows[1]
    assert row.speedup == pytest.approx(one / four, rel=1e-12)
    assert row.efficiency == pytest.approx(one / four / 4, rel=1e-12)
    assert row.stream_speedup == pytest.approx(4, rel=1e-12)
    assert row.step == pytest.approx(1.2 * four, rel=1e-12)
    assert (row.step_fastest, row.step_slowest) == pytest.approx((four, 1.5 * four), rel=1e-12)
    assert any("differ by up to 50 %" in warning for warning in scaling.warnings)


def test_weak_scaling_counts_frames_per_second():
    measured = [{1: measurement(n, (n, 1), blocks=16 * n)} for n in (1, 2, 4)]
    scaling = summarise("weak", SUMMARY, LOAD, measured, _accelerator)
    steps = [row.step for row in scaling.rows]
    assert [row.efficiency for row in scaling.rows] == pytest.approx([steps[0] / step for step in steps], rel=1e-12)
    assert [row.frames for row in scaling.rows] == [1024, 2048, 4096]


def test_ranks_that_share_cores_have_no_efficiency():
    scaling, _ = series((1, 1), (16, 1))
    row = scaling.rows[1]
    assert row.oversubscribed
    assert (row.speedup, row.efficiency, row.stream_speedup) == (None, None, None)
    assert any("16 on 16x1" in warning and "no efficiency" in warning for warning in scaling.warnings)
    assert list(scaling.fitted) == ["rank"]  # messages of 16 ranks on 8 cores were not used


def test_the_model_is_recovered_and_has_no_error(strong):
    scaling, _ = strong
    for name in ("bandwidth", "one_pass_bandwidth", "sums_bandwidth", "overhead", "latency", "network"):
        assert getattr(scaling.machine, name) == pytest.approx(getattr(MACHINE, name), rel=1e-6)
    assert [row.error for row in scaling.rows] == pytest.approx([0.0] * 4, abs=1e-6)
    assert scaling.accelerator.share == pytest.approx(MACHINE.one_pass_bandwidth / STREAM)


def test_reading_from_the_disk_is_no_error_of_the_model():
    scaling, _ = series((1, 1), (2, 1), slow=(1.0,), read=0.5)
    assert [row.error for row in scaling.rows] == pytest.approx([0.0, 0.0], abs=1e-6)


def test_ranks_that_share_a_memory_wait_for_it():
    measured = [{1: measurement(1, (1, 1))}, {1: measurement(4, (4, 1))}]
    for row in measured[1][1].per_rank:
        row["stream_bytes_per_second"] = 2e9  # of each
    scaling = summarise("strong", SUMMARY, LOAD, measured, _accelerator)
    a_byte = 1 / MACHINE.bandwidth + 1 / 2e9 - 1 / STREAM
    assert scaling.rows[1].predicted.passes == pytest.approx(LOAD.bytes_passed((4, 1)) / 4 * a_byte, rel=1e-6)


def test_a_repeat_that_is_missing_leaves_the_pairs():
    measured = [{1: measurement(1, (1, 1))}, {2: measurement(2, (2, 1)), 3: measurement(2, (2, 1))}]
    row = summarise("strong", SUMMARY, LOAD, measured, _accelerator).rows[1]
    assert row.repeats == 2
    assert row.speedup is None


def test_different_processors_are_said():
    measured = [{1: measurement(1, (1, 1))}, {1: measurement(2, (2, 1), processor="another")}]
    scaling = summarise("strong", SUMMARY, LOAD, measured, _accelerator)
    assert any("different processors: another, some processor" in warning for warning in scaling.warnings)


def test_the_predictions_reach_1024_ranks_and_gain_from_slices(strong):
    scaling, _ = strong
    this, large = scaling.predictions
    assert [row.ranks for row in large.rows] == list(PREDICTED_RANKS) == [2**n for n in range(11)]
    assert "this problem" in this.title
    assert "5000 frames x 1,000,000 reflections" in large.title
    assert all(row.cost.seconds <= row.frames_only.seconds * 1.1 for row in large.rows)
    assert large.rows[0].efficiency == 1.0


def test_files_hold_everything(tmp_path, strong):
    scaling, measured = strong
    write_scaling(tmp_path, scaling, [list(repeats.values()) for repeats in measured])
    record = json.loads((tmp_path / "scaling.json").read_text())
    assert record["schema"] == 1
    assert [row["grid"] for row in record["rows"]] == ["1x1", "2x1", "1x2", "2x2"]
    assert {prediction["measured"] for prediction in record["predictions"]} == {False}
    assert record["predictions"][1]["machine"]["network"] == 25e9
    assert [len(repeats) for repeats in record["measurements"]] == [3, 3, 3, 3]
    rows = list(csv.DictReader((tmp_path / "scaling.csv").read_text().splitlines()))
    assert [float(row["step"]) for row in rows] == [row["step"] for row in record["rows"]]
    assert float(rows[1]["predicted_step"]) == pytest.approx(float(rows[1]["step"]), rel=1e-6)
    assert ET.parse(tmp_path / "scaling.svg").getroot().tag.endswith("svg")


def test_the_page_says_what_is_measured_and_what_is_predicted(strong):
    scaling, _ = strong
    shown = page(scaling, "series")
    assert "Predicted, not measured: up to 1024 GPUs" in shown
    assert shown.count("PREDICTED") == 3  # under the figure and over both tables
    assert "3000 GB/s of memory" in shown
    assert "the pass over frames that is alone" in shown
    assert "<td>1024</td>" in shown or '<td class="text">1024</td>' in shown
    assert shown.count("<img") == 2
    assert not re.search(r'(src|href)="(?!data:)', shown)  # needs no other file
    assert "messages between nodes were not measured" in shown
    assert "&lt;data" not in shown  # numbers are not escaped markup


def test_the_terminal_has_the_tables_of_the_page(strong, capsys):
    print_tables(strong[0])
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines if line.startswith(("measured", "model", "rates"))] == [
        "measured, strong scaling (* ranks shared cores)", "rates, speed-up and efficiency",
        "model against measurement",
    ]  # fmt: skip
    assert sum(line.startswith("PREDICTED, not measured: ") for line in lines) == 2
    assert sum(line.split()[:2] == ["2", "1x2"] for line in lines) >= 3
    assert not [line for line in lines if "<" in line]  # no markup


def test_a_measurement_survives_its_file(tmp_path):
    before = measurement(4, (2, 2))
    path = tmp_path / "point.json"
    path.write_text(json.dumps(before.record()))
    assert read_measurement(path) == before


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"schema": 7}', '{"schema": 1}', '{"schema": 2, "ranks": 2}'])
def test_a_damaged_measurement_is_an_error_with_its_name(tmp_path, damage):
    path = tmp_path / "point.json"
    path.write_text(damage)
    with pytest.raises(InputError, match=r"point\.json"):
        read_measurement(path)


def test_a_directory_holds_one_mode(tmp_path, strong):
    check_mode(tmp_path, "weak")
    (tmp_path / "scaling.json").write_text(json.dumps(to_record(strong[0])))
    check_mode(tmp_path, "strong")
    with pytest.raises(InputError, match="--mode strong, now --mode weak"):
        check_mode(tmp_path, "weak")
