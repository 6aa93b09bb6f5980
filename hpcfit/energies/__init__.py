"""Terms of atomistic energies in JAX, as functions of positions, parameters and box; OpenMM Systems in and out.

Units are OpenMM's: nm, kJ/mol, ps, e, radians. Everything is float64.
"""
