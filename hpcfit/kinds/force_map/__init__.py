"""Kind "force-map": beads and constraints, passes over the frames, maps, mapped frames, force fields."""
