"""Pure functions of arrays: scattering, reciprocal space, internal coordinates, elastic networks."""
