"""Molecular dynamics: replicas of OpenMM systems, written in pieces, and beads that move by Langevin in JAX."""
