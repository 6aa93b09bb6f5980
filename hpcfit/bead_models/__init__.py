"""Coarse-grained potentials, linear and neural: their bases and fits, tables, OpenMM Systems, free energies."""
