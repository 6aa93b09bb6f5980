"""`hpcfit sweep`: many fits of one problem, a grid of options, as tasks or as a Slurm array, and what came out."""
