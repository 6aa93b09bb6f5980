"""Constants of nature in hpcfit's units (A, kJ/mol, ps, K, amu)."""

GAS_CONSTANT = 8.31446261815324e-3  # kJ/mol/K, exact since 2019
