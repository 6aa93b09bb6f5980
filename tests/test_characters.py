"""Names of others in logs, errors, tables, pages and figures: no control character, and no formula in a cell."""

import csv
import logging
import re

import pytest
from markupsafe import Markup

from hpcfit.characters import cell, control_in, in_one_line, printable, text_of
from hpcfit.errors import InputError
from hpcfit.kinds.table import load_config
from hpcfit.log import Printable, in_columns
from hpcfit.report.page import Section, Table, Text, render
from hpcfit.store.files import read_csv, write_csv

CLEAR = "\x1b[2Jwater"  # clears a terminal
EVIL = [
    "\x00", "\x07", "\x08", "\r", "\x1b[31m", "\x7f", "\x85", "\x9b31m", "\u061c", "\u200f", "\u202e", "\u2066",
    "\u2028", "\udc80",
]  # fmt: skip


@pytest.mark.parametrize("evil", EVIL, ids=ascii)
def test_control_characters_are_shown_as_escapes(evil):
    shown = printable(f"water{evil}\n\tions")
    assert shown == f"water{ascii(evil)[1:-1]}\n\tions"
    assert in_one_line(f"water{evil}\n\tions") == f"water{ascii(evil)[1:-1]}\\n\\tions"
    assert control_in(f"water{evil}") == ascii(evil[0])[1:-1]
    shown.encode("utf-8")


@pytest.mark.parametrize("text", ["", "NaCl 2 Å, 水 🧪", "x̂ = −½", "a\u00a0b", "re\u0301sume", "नमस्ते\u200d"])
def test_text_of_any_language_stays_as_it_is(text):
    assert printable(text) == in_one_line(text) == text
    assert control_in(text) == ""


@pytest.mark.parametrize(
    "text", ["=1+2", "+A1", "-A1", "-", "@SUM(1)", "'=1", "''@x", "\uff1d1+2", '=HYPERLINK("x","y")']
)
def test_a_cell_that_begins_as_a_formula_has_an_apostrophe_and_is_read_back(text):
    assert cell(text) == f"'{text}"
    assert text_of(cell(text)) == text


@pytest.mark.parametrize(
    "value", [-1, 1.5, -2.5e-3, None, True, float("nan"), -float("inf"), "-1.5", "+3", "'quoted'", "a=b"]
)
def test_numbers_and_other_text_are_cells_as_they_are(value):
    assert cell(value) is value
    assert isinstance(value, float | int | None) or text_of(value) == value


@pytest.mark.parametrize("evil", ["\tx", "\rx", "\n=x"])
def test_a_cell_has_one_line_and_begins_with_no_blank_control(evil):
    assert cell(evil).isprintable()
    assert cell(evil)[0] == "\\"


def test_a_table_is_written_and_read(tmp_path):
    rows = [["=1+2", -0.1, None], [CLEAR, 2.0, "-x"]]
    write_csv(tmp_path / "t.csv", ("@name", "value", "note"), rows)
    raw = (tmp_path / "t.csv").read_bytes().decode()
    assert "\x1b" not in raw
    with open(tmp_path / "t.csv", newline="") as file:
        found = list(csv.reader(file))
    assert found == [["'@name", "value", "note"], ["'=1+2", "-0.1", ""], ["\\x1b[2Jwater", "2.0", "'-x"]]
    assert read_csv(tmp_path / "t.csv") == [
        {"@name": "=1+2", "value": "-0.1", "note": ""}, {"@name": "\\x1b[2Jwater", "value": "2.0", "note": "-x"},
    ]  # fmt: skip


def test_log_errors_tables_and_pages_show_escapes():
    record = logging.LogRecord("hpcfit", logging.INFO, "", 0, "label %s\nis read", (CLEAR,), None)
    assert Printable("%(message)s").format(record) == "label \\x1b[2Jwater\nis read"
    assert str(InputError(f"label {CLEAR}", remedy="rename\x07 it")) == "label \\x1b[2Jwater\n  remedy: rename\\x07 it"
    assert in_columns([[CLEAR, "a\nb"]]) == ["\\x1b[2Jwater  a\\nb"]
    table = Table(["source"], [[CLEAR], [Markup("<b>{}</b>").format("\u202eevil")]], f"caption {CLEAR}")
    page = render(f"title {CLEAR}", CLEAR, [Section(CLEAR, [table, Text(f"{CLEAR} <script>")])])
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    assert "\\x1b[2Jwater" in page
    assert "<b>\\u202eevil</b>" in page
    assert "<script>" not in page.partition("caption")[2]


def test_a_figure_has_no_control_character_in_its_svg():
    import matplotlib.pyplot as plt

    from hpcfit.report.drawing import drawn, shortened

    def labelled():
        figure, axis = plt.subplots()
        axis.set_title(shortened(CLEAR, 40))
        axis.set_gid("a\u202eb")
        return figure

    svg = drawn(labelled)().decode()
    assert "\x1b" not in svg
    assert "\u202e" not in svg
    assert "\\x1b[2Jwater" in svg


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[run]\ndirectory = "a\\nb"\n', "run.directory"),
        ('[[prepare.source]]\nlabel = "\\u001b[31m"\nmtz = "*.mtz"\n', "prepare.source.0.label"),
        ('[[prepare.source]]\nlabel = "\\u202e"\nmtz = "*.mtz"\n', "prepare.source.0.label"),
        ('[cluster]\nkind = "slurm"\nprologue = ["a", "b\\ntouch x"]\n', "cluster.prologue.1"),
    ],
)
def test_a_control_character_in_a_config_is_an_error_with_its_key(tmp_path, text, key):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(InputError, match=rf"'{re.escape(key)}' = .* holds the control character \\"):
        load_config(tmp_path / "config.toml")
