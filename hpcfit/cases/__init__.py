"""A case joins a problem to files: what a kind of problem reads, checks before it starts, and leaves in the run directory."""
