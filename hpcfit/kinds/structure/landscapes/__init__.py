"""Energies of coordinates [n, d], one a module; ``landscape`` says what each of them offers."""
