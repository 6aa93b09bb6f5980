"""Characters that names of others may hold and that no log, terminal, table or page may get, and cells of tables.

A terminal obeys escape sequences, a bidirectional override shows text in another order than it is read in, and a
spreadsheet program runs a cell that begins like a formula. Names come from files of other people, so that whatever is
written of them goes through here.
"""

from __future__ import annotations

import unicodedata
from typing import Any

FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"  # what a formula begins with; the same in the wide forms of East Asia
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
BREAKS = "\u2028\u2029"  # line and paragraph, which some programs end a line at
LAYOUT = "\n\t"  # of text of several lines


def is_control(character: str) -> bool:
    """True for a control character (C0, C1, DEL), a bidirectional control, and half of a pair that is not Unicode."""
    return unicodedata.category(character) in ("Cc", "Cs") or character in BIDI or character in BREAKS


def control_in(text: str) -> str:
    """The first control character of a text as it is written in Python, line feed and tab included; "" without one."""
    return next((_escaped(character) for character in text if is_control(character)), "")


def printable(text: str) -> str:
    """The text with escapes such as \\x1b in place of control characters; line feeds and tabs stay."""
    if text.isprintable():  # most text; no control character is
        return text
    return "".join(_escaped(one) if is_control(one) and one not in LAYOUT else one for one in text)


def in_one_line(text: str) -> str:
    """The text with escapes in place of all control characters, line feeds and tabs included."""
    return text if text.isprintable() else "".join(_escaped(one) if is_control(one) else one for one in text)


def cell(value: Any) -> Any:
    """A value as a cell of a CSV file: numbers and None as they are, text in one line, and never as a formula.

    Text that begins as a formula has an apostrophe before it, unless it is a number. ``text_of`` takes it away.
    """
    if not isinstance(value, str):
        return value if value is None or _is_number(value) else cell(str(value))
    text = in_one_line(value)
    return f"'{text}" if _begins_a_formula(text) and not _is_number(text) else text


def text_of(written: str) -> str:
    """The text of a cell that ``cell`` wrote; control characters stay escaped."""
    return written[1:] if written.startswith("'") and _begins_a_formula(written) else written


def _begins_a_formula(text: str) -> bool:
    """Whether a spreadsheet program would run it, with apostrophes before it or without."""
    return text.lstrip("'")[:1] in tuple(FORMULA)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
