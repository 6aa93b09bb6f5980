"""`hpcfit scaling`: options, points, measurements of a step, the series of them, its summary and page."""
