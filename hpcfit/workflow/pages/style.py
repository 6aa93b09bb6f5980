"""The looks of the page /hpcfit: figures, cards and tables that read on light and on dark backgrounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bokeh.events import DocumentReady
from bokeh.models import Column, CustomJS, Div, InlineStyleSheet
from bokeh.plotting import figure
from markupsafe import Markup

from hpcfit.characters import printable

# Distinguishable with every kind of colour vision, and of a lightness that stands out from white and from black.
COLORS = ("#2f7fc1", "#e08214", "#1b9e77", "#d6604d", "#a06cb5", "#8c8c8c")
FONT = "system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"

TEMPLATE = """{% extends "simple.html" %}
{% block extra_resources %}
<style>
  body { background: #ffffff; }
  .content { padding: 8px 16px 24px 16px; box-sizing: border-box; }
  @media (prefers-color-scheme: dark) { body { background: #15191e; } }
</style>
{% endblock %}
"""

# The style sheet of the page does not reach inside Bokeh's widgets.
CSS = f"""
  .h {{ font-family: {FONT}; color: #1c2733; line-height: 1.35; }}
  .h h2 {{ font-size: 17px; font-weight: 600; margin: 6px 0 2px 0; }}
  .h .note {{ font-size: 13px; color: #5b6875; }}
  .h .cards {{ display: flex; flex-wrap: wrap; gap: 8px; margin-top: 6px; font-variant-numeric: tabular-nums; }}
  .h .card {{ border: 1px solid #d5dbe1; border-radius: 6px; padding: 6px 10px; min-width: 84px; }}
  .h .card b {{ display: block; font-size: 20px; font-weight: 600; white-space: nowrap; }}
  .h .card span {{ font-size: 12px; color: #5b6875; white-space: nowrap; }}
  .h table {{ border-collapse: collapse; font-size: 13px; width: 100%; font-variant-numeric: tabular-nums; }}
  .h th {{ text-align: left; font-weight: 600; color: #5b6875; padding: 3px 12px 3px 0; }}
  .h td {{ border-top: 1px solid #e4e8ec; padding: 3px 12px 3px 0; white-space: nowrap; }}
  .h .bar, .h .fill {{ height: 10px; border-radius: 5px; }}
  .h .bar {{ display: inline-block; width: 100%; min-width: 160px; background: #dfe5ea; }}
  .h .fill {{ display: block; background: {COLORS[0]}; }}
  .h .done .fill {{ background: {COLORS[2]}; }}
  .h .quiet .fill {{ background: {COLORS[5]}; }}
  @media (prefers-color-scheme: dark) {{
    .h {{ color: #e4e9ee; }}
    .h .note, .h .card span, .h th {{ color: #9fabb7; }}
    .h .card {{ border-color: #3a444f; }}
    .h td {{ border-color: #2b333c; }}
    .h .bar {{ background: #303a44; }}
  }}
"""

# Figures are drawn on a canvas, which no style sheet reaches.
THEME_CODE = """
const dark = window.matchMedia('(prefers-color-scheme: dark)')
function paint() {
  const ink = dark.matches ? '#c6cfd8' : '#33404c', rule = dark.matches ? '#2b333c' : '#e4e8ec'
  for (const f of [...root.references()].filter((model) => model.type === 'Figure')) {
    for (const axis of [...f.below, ...f.left].filter((r) => r.axis_label !== undefined)) {
      axis.setv({axis_label_text_color: ink, major_label_text_color: ink, axis_line_color: ink,
                 major_tick_line_color: ink, minor_tick_line_color: null})
    }
    for (const grid of f.center.filter((r) => r.grid_line_color !== undefined)) { grid.grid_line_color = rule }
    for (const legend of f.above.filter((r) => r.label_text_color !== undefined)) { legend.label_text_color = ink }
    if (f.title) { f.title.text_color = ink }
  }
}
if (!root.followed) { root.followed = true; dark.addEventListener('change', paint) }
paint()
"""


def follow_theme(document: Any, root: Column) -> None:
    """Give all figures below a root, and those to come, the colours of the browser's light or dark scheme."""
    paint = CustomJS(args={"root": root}, code=THEME_CODE)
    document.js_on_event(DocumentReady, paint)
    root.js_on_change("children", paint)


def chart(title: str, x: str, y: str, **options: Any) -> figure:
    """An empty figure: what it shows, and its axes with their units."""
    made = figure(
        title=title, x_axis_label=x, y_axis_label=y, height=245, sizing_mode="stretch_width", toolbar_location="above",
        tools="pan,box_zoom,wheel_zoom,reset,save", **options,
    )  # fmt: skip
    made.toolbar.autohide, made.toolbar.logo = True, None
    made.title.text_font, made.title.text_font_size = FONT, "14px"
    for axis in (made.xaxis, made.yaxis):
        axis.axis_label_text_font, axis.major_label_text_font = FONT, FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "12px"
    made.background_fill_color = made.border_fill_color = made.outline_line_color = None
    made.min_border_right = 16
    return made


def with_legend(made: figure) -> None:
    """Put the legend of the glyphs that have a label between title and frame; a click on one hides it."""
    for legend in made.legend:
        made.center.remove(legend)
        made.add_layout(legend, "above")
        legend.orientation, legend.location, legend.click_policy = "horizontal", "left", "hide"
        legend.label_text_font, legend.label_text_font_size = FONT, "12px"
        legend.background_fill_color = legend.border_line_color = None
        legend.padding = legend.margin = 0
        legend.spacing = 12
        legend.glyph_height = legend.glyph_width = legend.label_height = 14


def text() -> Div:
    """Room for HTML that ``fill`` writes."""
    return Div(text="", sizing_mode="stretch_width", stylesheets=[InlineStyleSheet(css=CSS)])


def fill(place: Div, *parts: str) -> None:
    """Write HTML where it differs from what stands there: only changes are sent to the browser. Names in it are without
    control characters."""
    written = printable('<div class="h">' + "".join(parts) + "</div>")
    if place.text != written:
        place.text = written


def heading(title: str, note: str = "") -> str:
    """A title and a line in small print."""
    return Markup('<h2>{}</h2><div class="note">{}</div>').format(title, note)


def cards(shown: Sequence[tuple[str, str, str]]) -> str:
    """Headline numbers: (what it is, its value, what to compare it with)."""
    boxes = [Markup('<div class="card"><span>{}</span><b>{}</b><span>{}</span></div>').format(*card) for card in shown]
    return Markup('<div class="cards">{}</div>').format(Markup("").join(boxes))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of text or Markup below their heads."""
    cells = lambda tag, row: Markup("").join(Markup(f"<{tag}>{{}}</{tag}>").format(cell) for cell in row)  # noqa: E731
    lines = [cells("th", head), *(cells("td", row) for row in rows)]
    return Markup("<table>{}</table>").format(Markup("").join(Markup("<tr>{}</tr>").format(line) for line in lines))


def bar(share: float, kind: str = "") -> Markup:
    """A bar filled to a share of 0 to 1; kind: "", "done" or "quiet"."""
    width = f"{100 * min(max(share, 0.0), 1.0):.1f}"
    fill_of_bar = Markup('<span class="fill" style="width:{}%"></span>').format(width)
    return Markup('<span class="{}"><span class="bar">{}</span></span>').format(kind, fill_of_bar)
