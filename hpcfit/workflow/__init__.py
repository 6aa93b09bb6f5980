"""Work that needs no synchronisation: Dask clusters and their tasks, Slurm jobs, the live dashboard."""
