"""Dask clusters: opening one of any kind, dealing out work to it, and looking after its workers."""
