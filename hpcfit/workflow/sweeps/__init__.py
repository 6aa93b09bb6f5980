"""Many fits of one problem: a grid of options, as tasks or as a Slurm array."""
