"""Structure factors of one frame, by density FFT (gemmi) and by direct summation, and the diffuse intensity of many.

Everything is in P1 and without displacement factors: a frame of a simulation is one arrangement of atoms in its box.
`FormFactors` says what scatters: X-rays (F in electrons), neutrons (fm) or electrons (A).
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics import reciprocal

# Density below this fraction ends an atom. It sets the time and most of the error. Measured for a protein crystal of
# 11,596 atoms at 2 A, oversampling 1.5, as rms |dF| / rms |F|: 5e-5 at 1e-5 (0.21 CPU-s a frame), 2e-5 at 3e-6 (0.27),
# 1e-5 at 1e-6 (0.32). float16 shards round F - F0 by 3e-4.
DENSITY_CUTOFF = 3e-6

# The blur damps what the grid folds onto d_min to e^-8 = 3e-4 of the signal, before the fall of f(s) helps. A weaker
# blur leaves aliases at d_min (8e-5 at 6); a stronger one magnifies the density that was cut off (5e-4 at 15).
ALIAS_EXPONENT = 8.0

MINIMUM_OVERSAMPLING = 1.25


class FFTError(NamedTuple):
    """Difference between density FFT and direct summation on a sample of reflections."""

    rms: float  # sqrt(<|dF|^2> / <|F|^2>)
    median: float  # of |dF| / |F|
    largest: float  # of |dF| / rms F
    reflections: int  # size of the sample


class FormFactors(NamedTuple):
    """The form factors of atoms, f(s) = sum_i a_i exp(-b_i / (4 d^2)) + c.

    radiation: "xray", four Gaussians and a constant (International Tables C, 6.1.1, in electrons); "neutron", coherent
    scattering lengths (10.1080/10448639208218770, in fm); "electron", five Gaussians (International Tables C, 4.3.2.2,
    in A). charges: (element, charge) of elements whose atoms are all ions, of X-rays alone; others are neutral.
    """

    radiation: str = "xray"
    charges: tuple[tuple[str, int], ...] = ()

    def charge(self, element: str) -> int:
        """The charge whose form factor an element has."""
        return dict(self.charges).get(element, 0)

    def coefficients(self, element: str) -> tuple[np.ndarray, np.ndarray, float]:
        """The a [n], b [n] A^2 and c of an element; InputError where the tables have none."""
        import gemmi

        known = gemmi.Element(element)
        table = getattr(known, {"xray": "it92", "neutron": "neutron92", "electron": "c4322"}[self.radiation])
        # gemmi reads any unknown text as element X, whose coefficients are those of oxygen.
        if known.atomic_number == 0 or known.name.upper() != element.strip().upper() or not _is_there(table):
            raise InputError(
                f"'{element}' is not an element with {RADIATIONS[self.radiation]} form factor",
                remedy="correct the element column of the topology",
            )
        if charge := self.charge(element):
            table = _charged(known, charge)
        found = table.get_coefs()
        n = len(found) // 2
        return np.array(found[:n]), np.array(found[n : 2 * n]), found[-1] if len(found) % 2 else 0.0


RADIATIONS = {"xray": "an X-ray", "neutron": "a neutron", "electron": "an electron"}
XRAY = FormFactors()


def _is_there(table) -> bool:
    return table is not None and any(table.get_coefs())


def _charged(element, charge: int):
    """The IT92 coefficients of an ion; InputError that lists the charges there are."""
    import gemmi

    with _charges_count():
        found = {q: gemmi.IT92_get_exact(element, q) for q in range(-4, 9)}
    if found.get(charge) is None:
        there = ", ".join(f"{q:+d}" for q, table in found.items() if q and table is not None)
        raise InputError(
            f"there is no X-ray form factor of {element.name} with charge {charge:+d}; there are {there or 'none'}",
            remedy="correct [prepare] charges",
        )
    return found[charge]


@contextlib.contextmanager
def _charges_count() -> Iterator[None]:
    """With the charges of atoms heeded by gemmi, which leaves them out unless it is told."""
    import gemmi

    before = gemmi.IT92_get_ignore_charge()
    gemmi.IT92_set_ignore_charge(False)
    try:
        yield
    finally:
        gemmi.IT92_set_ignore_charge(before)


def form_factor(element: str, inv_d2, form_factors: FormFactors = XRAY) -> np.ndarray:
    """f(s) of an element, float64 [H], at 1/d^2 in A^-2."""
    a, b, c = form_factors.coefficients(element)
    return np.exp(np.multiply.outer(np.asarray(inv_d2, float), -b / 4)) @ a + c


SITE = "X"  # the element of a virtual site, which has no electrons


def structure_factors_direct(elements, fractional, hkl, inv_d2, form_factors: FormFactors = XRAY) -> np.ndarray:
    """F(h) = sum_j f_j(s_h) exp(2 pi i h . x_j), complex128 [H], for atoms at fractional [N, 3] of the box.

    hkl [H, 3] are indices of the box; inv_d2 [H] in A^-2. One term an atom and reflection: for checks.
    """
    elements, fractional = np.asarray(elements), np.asarray(fractional, float)
    total = np.zeros(len(hkl), complex)
    for element in np.unique(elements[elements != SITE]):
        x_j = fractional[elements == element]
        phases = np.array([np.exp(2j * np.pi * (x_j @ h)).sum() for h in np.asarray(hkl, float)])
        total += form_factor(str(element), inv_d2, form_factors) * phases
    return total


class DensityFFT:
    """Structure factors of frames with the same atoms and box, at a fixed list of reflections.

    elements: N symbols, of which "X" is a site without electrons; cell: of the BOX (A, degrees); hkl [H, 3]: indices of
    the box, d >= d_min. Calling it with fractional coordinates [N, 3] gives F complex128 [H]. A frame whose box differs
    a little (constant pressure) is taken at the same fractional coordinates, so that hkl and f(s) are those of the
    reference box.
    """

    def __init__(self, elements, cell, hkl, d_min: float, oversampling: float = 1.5, form_factors: FormFactors = XRAY):
        if oversampling < MINIMUM_OVERSAMPLING:
            raise InputError(
                f"oversampling = {oversampling} leaves no room between the signal and its aliases",
                remedy=f"use {MINIMUM_OVERSAMPLING} or more; 1.5 gives errors of some 1e-5",
            )
        self.elements, self.cell, self.hkl = [str(e) for e in elements], tuple(cell), np.asarray(hkl, np.int32)
        self.inv_d2 = reciprocal.inverse_d2(self.hkl, (1, 1, 1), self.cell)
        if self.inv_d2.max(initial=0) > (1 + 1e-6) / d_min**2:
            raise InputError(
                f"a reflection at {self.inv_d2.max() ** -0.5:.4f} A lies beyond d_min = {d_min} A",
                remedy="lower d_min or the list of reflections",
            )
        self._scatters = np.array([element != SITE for element in self.elements], bool)
        scattering = [element for element in self.elements if element != SITE]
        for element in set(scattering):
            form_factors.coefficients(element)
        self._form_factors = form_factors
        self._flat = _flat_structure(scattering, self.cell, form_factors)
        self._orthogonal = orthogonalization(self.cell)
        self._calculator = _calculator(d_min, oversampling, form_factors.radiation)
        # Convolving with exp(-blur s^2 / 4) is undone on F.
        self._unblur = np.exp(self._calculator.blur / 4 * self.inv_d2)
        self._index = None

    def __call__(self, fractional) -> np.ndarray:
        import gemmi

        fractional = np.asarray(fractional, float)
        if fractional.shape != (len(self.elements), 3):
            raise InputError(
                f"{len(self.elements)} atoms have elements, the coordinates have shape {fractional.shape}",
                remedy="give topology and trajectory of the same atoms",
            )
        self._flat.pos[:] = fractional[self._scatters] @ self._orthogonal.T
        structure = self._flat.generate_structure()
        self._calculator.set_grid_cell_and_spacegroup(structure)
        with _charges_count() if self._form_factors.charges else contextlib.nullcontext():
            self._calculator.put_model_density_on_grid(structure[0])
        grid = gemmi.transform_map_to_f_phi(self._calculator.grid, half_l=True).array
        return self._pick(grid)

    def _pick(self, grid) -> np.ndarray:
        """F at hkl from the half of reciprocal space with l >= 0, complex64 [nx, ny, nz/2+1] in Fortran order."""
        if self._index is None:
            canonical, self._flipped = reciprocal.hemisphere(self.hkl)
            h, k, ell = canonical.T.astype(np.int64)
            nx, ny, _ = grid.shape
            self._index = h % nx + nx * (k % ny + ny * ell)
        f_h = grid.ravel(order="K")[self._index].astype(np.complex128) * self._unblur
        np.conjugate(f_h, out=f_h, where=self._flipped)
        return f_h

    def error(self, fractional, sample: int = 200, seed: int = 0) -> FFTError:
        """Compare with direct summation on `sample` reflections drawn at random."""
        pick = np.random.default_rng(seed).permutation(len(self.hkl))[:sample]
        exact = structure_factors_direct(self.elements, fractional, self.hkl[pick], self.inv_d2[pick],
                                         self._form_factors)  # fmt: skip
        error, scale = np.abs(self(fractional)[pick] - exact), np.sqrt(np.mean(np.abs(exact) ** 2))
        # |F| near zero would make any method look bad: those reflections count at a thousandth of the rms.
        relative = error / np.maximum(np.abs(exact), 1e-3 * scale)
        rms = float(np.sqrt(np.mean(error**2)) / scale)
        return FFTError(rms, float(np.median(relative)), float(error.max() / scale), len(pick))


def orthogonalization(cell) -> np.ndarray:
    """Matrix [3, 3], A: positions = fractional @ matrix.T, a along x and b in the xy plane (PDB convention)."""
    import gemmi

    return np.array(gemmi.UnitCell(*cell).orth.mat.tolist())


def fractional_coordinates(positions, box) -> np.ndarray:
    """Fractional [N, 3] of positions [N, 3] in a box whose rows are its vectors [3, 3], both in A."""
    return np.linalg.solve(np.asarray(box, float).T, np.asarray(positions, float).T).T


def diffuse_intensity(f_th, w_t) -> np.ndarray:
    """Guinier's diffuse intensity x(h) = sum_t w_t |F_t(h)|^2 - |sum_t w_t F_t(h)|^2 for sum_t w_t = 1, float64 [H].

    Numerically as sum_t w_t |F_t - <F>|^2, which cannot cancel. f_th [T, H] complex, w_t [T].
    """
    f_th, w_t = np.asarray(f_th, np.complex128), np.asarray(w_t, float)
    deviation = f_th - w_t @ f_th
    return w_t @ (deviation.real**2 + deviation.imag**2)


def _calculator(d_min: float, oversampling: float, radiation: str):
    import gemmi

    made = {
        "xray": gemmi.DensityCalculatorX, "neutron": gemmi.DensityCalculatorN, "electron": gemmi.DensityCalculatorE,
    }  # fmt: skip
    calculator = made[radiation]()
    calculator.d_min, calculator.rate, calculator.cutoff = d_min, oversampling, DENSITY_CUTOFF
    # The grid folds s' = (2 rate - 1)/d onto s = 1/d: exp(-blur (s'^2 - s^2)/4) = exp(-blur rate (rate - 1)/d^2).
    calculator.blur = ALIAS_EXPONENT * d_min**2 / (oversampling * (oversampling - 1))
    return calculator


def _flat_structure(elements, cell, form_factors: FormFactors):
    """A gemmi.FlatStructure of single atoms in P1: its positions are one array, so that a frame is one assignment."""
    import gemmi

    structure, model, chain, residue = gemmi.Structure(), gemmi.Model(1), gemmi.Chain("A"), gemmi.Residue()
    structure.cell, structure.spacegroup_hm = gemmi.UnitCell(*cell), "P 1"
    residue.name, residue.seqid = "ALL", gemmi.SeqId("1")
    atoms = {name: gemmi.Atom() for name in set(elements)}
    for name, atom in atoms.items():
        atom.name, atom.element, atom.occ, atom.b_iso = name, gemmi.Element(name), 1.0, 0.0
        atom.charge = form_factors.charge(name)
    for name in elements:
        residue.add_atom(atoms[name])
    chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    return gemmi.FlatStructure(structure)
