"""Readers of other programs' files: trajectories, topologies, reflections, forces and measured maps."""
