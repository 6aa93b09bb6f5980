"""Molecular dynamics as independent tasks: replicas of OpenMM systems, written in pieces."""
