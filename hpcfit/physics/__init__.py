"""Pure functions of arrays: scattering and reciprocal space."""
