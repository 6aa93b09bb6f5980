"""The parts of a report: sections of cards, tables and figures, numbers with their full value, one HTML template."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hpcfit.characters import printable
from hpcfit.log import span

RUN_DIRECTORY = Markup("from the files of the run directory; <code>hpcfit report</code> writes it anew")


@dataclass(frozen=True)
class Text:
    """A paragraph; a `warning` is set off from the rest."""

    text: str
    warning: bool = False
    template = "text"


@dataclass(frozen=True)
class Card:
    """One headline number beside its baseline."""

    title: str
    value: str
    baseline: str
    meaning: str


@dataclass(frozen=True)
class Cards:
    cards: Sequence[Card]
    template = "cards"


@dataclass(frozen=True)
class Figure:
    """An SVG picture; `alt` is its one-line description, `caption` says what to see and what the baseline is."""

    svg: bytes
    alt: str
    caption: str
    template = "figure"

    @property
    def source(self) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


@dataclass(frozen=True)
class Table:
    """Rows of text or Markup; the first `text_columns` columns are left-aligned, the others are numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    text_columns: int = 1
    template = "table"


@dataclass(frozen=True)
class Fold:
    """Preformatted text behind a title."""

    title: str
    text: str
    template = "fold"


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Text | Cards | Figure | Table | Fold] = field(default_factory=tuple)


def render(title: str, subtitle: str, sections: Sequence[Section], origin: str = RUN_DIRECTORY) -> str:
    """The page as HTML text; every text in it is escaped. Nothing but the arguments goes in, not even the date.

    ``origin``: what the page was written from and how to write it anew, after "Written by hpcfit 1.2.3".
    """
    import jinja2

    from hpcfit import __version__

    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_without_controls,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.j2")
    return template.render(title=title, subtitle=subtitle, sections=sections, version=__version__, origin=origin)


def _without_controls(value: Any) -> Any:
    """What a template writes, without the control characters of names."""
    if isinstance(value, Markup):
        return Markup(printable(value))
    return printable(value) if isinstance(value, str) else value


def number(value: float | None, shown: str) -> Markup:
    """A number as it is shown, its full value kept in the page for machines."""
    if value is None or not math.isfinite(value):
        return Markup("–") if value is None or math.isnan(value) else Markup("∞" if value > 0 else "−∞")
    return Markup('<data value="{}">{}</data>').format(repr(float(value)), shown.replace("-", "−"))


def correlation(value: float | None) -> Markup:
    """A CC to 4 decimals, to more where it is so close to 1 that its distance from 1 would not show two digits."""
    if value is None or not math.isfinite(value):
        return number(value, "")
    distance = 1 - abs(value)
    decimals = 4 if distance >= 1e-3 else 6 if distance < 1e-14 else 1 - math.floor(math.log10(distance))
    return number(value, f"{value:.{decimals}f}")


def change(value: float | None) -> Markup:
    """A difference with its sign: 4 decimals, or two significant digits where those would read 0."""
    if value is None or not math.isfinite(value) or value == 0 or abs(value) >= 1e-3:
        return number(value, f"{value or 0:+.4f}")
    return Markup("+" if value > 0 else "") + significant(value, 2)


def significant(value: float | None, digits: int = 3) -> Markup:
    """A number to significant digits, whole numbers never shortened, powers of ten as such."""
    if value is None or not math.isfinite(value):
        return number(value, "")
    if value == 0 or 1e-3 <= abs(value) < 10**digits:
        decimals = 0 if value == 0 else max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return number(value, f"{value:.{decimals}f}")
    if 1 <= abs(value) < 1e7:
        return number(value, grouped(round(value)))
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = Markup(" × 10<sup>{}</sup>").format(str(int(exponent)).replace("-", "−"))
    return Markup('<data value="{}">{}{}</data>').format(repr(float(value)), mantissa.replace("-", "−"), power)


def grouped(value: int) -> str:
    """A whole number in groups of three, by narrow no-break spaces, from five digits on."""
    return f"{value:,}".replace(",", "\u202f") if abs(value) >= 10_000 else str(value)


def percent(value: float | None) -> Markup:
    """A fraction as per cent to one decimal."""
    return number(value, "" if value is None else f"{100 * value:.1f} %")


def duration(seconds: float | None) -> Markup:
    """A time as a person says it: 3.2 ms, 12.4 s, 3 min 05 s, 2 h 07 min."""
    return number(seconds, "" if seconds is None else span(seconds))


def plus_minus(shown: Markup | str, error: float | None) -> Markup:
    """A number with its error to two digits, where there is one that is finite."""
    if error is None or not math.isfinite(error):
        return Markup("{}").format(shown)
    return Markup("{} ± {}").format(shown, _error(error))


def _error(value: float) -> Markup:
    """Two digits, without powers of ten beside a number that has none."""
    if not 1e-5 <= value < 1:
        return significant(value, 2)
    return number(value, f"{value:.{1 - math.floor(math.log10(value))}f}")


def near_zero(value: float) -> Markup:
    """Three digits; what rounding leaves of 0 reads 0."""
    return number(value, "0") if abs(value) < 1e-12 else significant(value)


def plural(n: int, noun: str) -> str:
    """1 frame, 2 frames."""
    return f"{grouped(n)} {noun}" if n == 1 else f"{grouped(n)} {noun}s"


def bar(value: float, largest: float, mark: float | None = None) -> Markup:
    """A bar of `value` on the scale 0 .. largest, with a tick at `mark` where there is one."""
    shapes = Markup('<span class="fill" style="width:{}%"></span>').format(_share_of(value, largest))
    if mark is not None:
        shapes += Markup('<span class="tick" style="left:{}%"></span>').format(_share_of(mark, largest))
    return Markup('<span class="bar">{}</span>').format(shapes)


def _share_of(value: float, largest: float) -> str:
    return f"{100 * min(1.0, max(0.0, value / largest)) if largest > 0 else 0.0:.1f}"
