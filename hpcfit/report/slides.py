"""The sections of a report as slides (PowerPoint): a slide a figure, tables cut to what can be read, texts beside.

Needs python-pptx, which only slides ask for.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcfit.errors import InputError
from hpcfit.log import logger
from hpcfit.report.page import Cards, Figure, Fold, Section, Table, Text
from hpcfit.store.files import written_whole

ROWS, COLUMNS = 12, 12  # of a table on one slide; further rows and lines go to the next, at most MOST slides
MOST = 3
LINES = 40  # of preformatted text on a slide
WIDTH, HEIGHT, EDGE = 13.333, 7.5, 0.5  # inches
TOP = 1.2  # below the title


def write_slides(path: Path, title: str, subtitle: str, sections: Sequence[Section]) -> None:
    """Write the slides of sections whose figures are PNG. Raises InputError without python-pptx."""
    try:
        from pptx import Presentation
        from pptx.util import Inches
    except ImportError:
        raise InputError(
            "slides need python-pptx, which is not installed", remedy="pip install python-pptx, or leave out --pptx"
        ) from None
    deck = Presentation()
    deck.slide_width, deck.slide_height = Inches(WIDTH), Inches(HEIGHT)
    first = deck.slides.add_slide(deck.slide_layouts[6])
    _text(first, title, 2.6, 40, bold=True)
    _text(first, subtitle, 3.7, 20)
    for section in sections:
        _Slides(deck, section.title).add(section.blocks)
    with written_whole(path) as temporary:
        deck.save(temporary)
    logger.info("slides %s (%d)", path, len(deck.slides))


class _Slides:
    """The slides of a section: texts in a row share one, everything else has its own."""

    def __init__(self, deck: Any, title: str):
        self.deck, self.title = deck, title

    def add(self, blocks: Sequence[Any]) -> None:
        waiting: list[str] = []
        for block in blocks:
            if isinstance(block, Text):
                waiting.append(("! " if block.warning else "") + plain(block.text))
                continue
            if isinstance(block, Cards):
                waiting += [
                    f"{plain(one.title)}: {plain(one.value)} ({plain(one.baseline)}; {plain(one.meaning)})"
                    for one in block.cards
                ]
                continue
            self._texts(waiting)
            waiting = []
            if isinstance(block, Figure):
                self._figure(block)
            elif isinstance(block, Table):
                self._table(block)
            elif isinstance(block, Fold):
                self._fold(block)
        self._texts(waiting)

    def _slide(self, more: str = "") -> Any:
        slide = self.deck.slides.add_slide(self.deck.slide_layouts[6])
        _text(slide, self.title + more, 0.3, 28, bold=True)
        return slide

    def _texts(self, texts: Sequence[str]) -> None:
        for start in range(0, len(texts), 8):
            _text(self._slide(), "\n".join(f"• {one}" for one in texts[start : start + 8]), TOP, 16)

    def _figure(self, block: Figure) -> None:
        from pptx.util import Inches

        slide, room = self._slide(), HEIGHT - TOP - 1.0
        picture = slide.shapes.add_picture(io.BytesIO(block.svg), Inches(EDGE), Inches(TOP), height=Inches(room))
        if picture.width > Inches(WIDTH - 2 * EDGE):
            picture.height = int(picture.height * Inches(WIDTH - 2 * EDGE) / picture.width)
            picture.width = Inches(WIDTH - 2 * EDGE)
        picture.left = int((self.deck.slide_width - picture.width) / 2)
        _text(slide, plain(block.caption), HEIGHT - 0.9, 10)

    def _table(self, block: Table) -> None:
        from pptx.util import Inches, Pt

        columns, pages = block.head[:COLUMNS], max(1, -(-len(block.rows) // ROWS))
        for page in range(min(pages, MOST)):
            rows = block.rows[page * ROWS : (page + 1) * ROWS]
            slide = self._slide(f" ({page + 1} of {pages})" if pages > 1 else "")
            size = (Inches(WIDTH - 2 * EDGE), Inches(0.32 * (len(rows) + 1)))
            table = slide.shapes.add_table(len(rows) + 1, len(columns), Inches(EDGE), Inches(TOP), *size).table
            for i, row in enumerate([columns, *rows]):
                for j, cell in enumerate(row[: len(columns)]):
                    frame = table.cell(i, j).text_frame
                    frame.text = plain(cell)
                    frame.paragraphs[0].font.size = Pt(10)
            left = " All rows are in the report." if page == MOST - 1 and pages > MOST else ""
            _text(slide, plain(block.caption) + left, HEIGHT - 0.9, 10)

    def _fold(self, block: Fold) -> None:
        lines = block.text.splitlines()
        for start in range(0, min(len(lines), MOST * LINES), LINES):
            left = ["…"] if start + LINES == MOST * LINES < len(lines) else []
            _text(self._slide(f": {block.title}"), "\n".join([*lines[start : start + LINES], *left]), TOP, 9)


def plain(text: Any) -> str:
    """The text without marks of HTML; powers as ^n."""
    marked = re.sub(r"<sup>(.*?)</sup>", r"^\1", str(text)) if hasattr(text, "striptags") else str(text)
    return type(text)(marked).striptags() if hasattr(text, "striptags") else marked


def _text(slide: Any, text: str, top: float, size: int, *, bold: bool = False) -> None:
    from pptx.util import Inches, Pt

    box = slide.shapes.add_textbox(Inches(EDGE), Inches(top), Inches(WIDTH - 2 * EDGE), Inches(0.6))
    box.text_frame.word_wrap = True
    for number, line in enumerate(text.splitlines() or [""]):
        paragraph = box.text_frame.paragraphs[0] if number == 0 else box.text_frame.add_paragraph()
        paragraph.text = line
        paragraph.font.size, paragraph.font.bold = Pt(size), bold
