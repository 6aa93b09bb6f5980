"""Files: frame stores, measured maps, and the readers of trajectories and reflection files."""
