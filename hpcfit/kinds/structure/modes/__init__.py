"""Slow modes: which particles move together softly, from the Hessian over many configurations or from couplings."""
