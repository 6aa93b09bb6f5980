"""Kind "structure": energies of coordinates, starts, slow modes, and many minimisations side by side."""
