"""Coarse-grained models put to use: tables of their terms, an OpenMM System, short simulations, free energies."""
