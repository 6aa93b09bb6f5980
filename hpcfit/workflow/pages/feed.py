"""A history on its way to one browser window: what is new is streamed."""

from __future__ import annotations

import numpy as np
from bokeh.models import ColumnDataSource

from hpcfit.workflow.pages.collector import Columns


class Feed:
    """The columns of a history in the browser: new rows are streamed, all are sent again after they were thinned."""

    def __init__(self, columns: Columns):
        self.source, self._columns, self._sent = ColumnDataSource(), columns, (-1, 0)
        self.update()

    def update(self) -> None:
        """Send what was added since the last call."""
        thinned, added = self._sent
        values = self._columns.values
        new = self._columns.added - added
        self._sent = (self._columns.thinned, self._columns.added)
        if thinned != self._columns.thinned or values.keys() != self.source.data.keys():
            self.source.data = {name: np.array(column, float) for name, column in values.items()}
        elif new:
            self.source.stream({name: np.array(column[-new:], float) for name, column in values.items()})
