"""Constants of nature in OpenMM's units."""

import math

CHARGE = 1.602176634e-19  # C, exact since 2019
AVOGADRO = 6.02214076e23  # 1/mol, exact since 2019
VACUUM = 1e-6 * 8.8541878128e-12 / (CHARGE**2 * AVOGADRO)  # permittivity, e²/(kJ/mol nm); CODATA 2018
COULOMB = 1 / (4 * math.pi * VACUUM)  # 1/(4π ε0), 138.9354576 kJ/mol nm/e²
