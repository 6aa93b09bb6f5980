"""What needs no synchronisation: Dask clusters and their tasks, Slurm jobs, sweeps, the live dashboard."""
