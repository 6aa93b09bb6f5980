"""The report of a run: the page, what all its sections share, how figures are drawn."""
