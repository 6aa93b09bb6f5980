"""Live pages on a Dask dashboard, and what feeds them."""
