"""A case joins a problem to files: what it reads, checks before it starts, and leaves in the run directory."""
