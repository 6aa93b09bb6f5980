"""The reflections of a store, and the reference its structure factors are centred on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import h5py
import numpy as np

from hpcfit.errors import InputError
from hpcfit.store.files import set_units

AMPLITUDE_UNITS = {"xray": "electrons", "neutron": "fm", "electron": "A"}  # by radiation, a setting of a store
AMPLITUDES = ", ".join(f"{unit} ({radiation})" for radiation, unit in AMPLITUDE_UNITS.items())


@dataclass(frozen=True)
class Reflections:
    """One hemisphere of reciprocal space (Friedel mates are conjugate): the columns of a store.

    hkl: [H, 3] int32; the Miller index with respect to the unit cell is hkl / ndiv.
    ndiv: the unit cells along a, b and c of the simulated supercell.
    cell: the UNIT cell a, b, c (A), alpha, beta, gamma (degrees).
    space_group: Hermann-Mauguin symbol of the crystal; what the averages of a fit use is the fit's own choice.
    """

    hkl: np.ndarray
    ndiv: tuple[int, int, int]
    cell: tuple[float, float, float, float, float, float]
    space_group: str

    def __len__(self) -> int:
        return len(self.hkl)

    def digest(self) -> str:
        """SHA-256 of everything that says which reflections these are."""
        text = f"{tuple(self.ndiv)}{tuple(map(float, self.cell))}{self.space_group}"
        return hashlib.sha256(text.encode() + np.ascontiguousarray(self.hkl, "<i4").tobytes()).hexdigest()


@dataclass(frozen=True)
class Reference:
    """F0(h) and s(h): a store holds (F - F0) / s, since x(h) does not change with F0 when the weights sum to 1.

    Centred float16 keeps the correlation to 1.2e-7 where raw complex64 loses 9e-4 at |<F>|^2 / diffuse = 1e4.

    mean: F0, [H] complex128, electrons. scale: s, [H] float64 > 0, electrons.
    """

    reflections: Reflections
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of_sample(cls, reflections: Reflections, F_th: np.ndarray) -> Reference:
        """The mean and the root-mean-square deviation of a sample of frames, ``F_th`` [n, H] complex128."""
        mean = F_th.mean(axis=0)
        rms = np.sqrt(np.mean(np.abs(F_th - mean) ** 2, axis=0))
        # A reflection that the sample does not move (or a sample of one frame) gets a scale that float16 can divide by.
        floor = max(1e-3 * np.median(rms), 1e-6 * np.median(np.abs(mean))) or 1.0
        return cls(reflections, mean, np.maximum(rms, floor))

    def digest(self) -> str:
        """SHA-256 of the reflections, F0 and s."""
        values = [np.ascontiguousarray(self.mean, "<c16"), np.ascontiguousarray(self.scale, "<f8")]
        return hashlib.sha256(self.reflections.digest().encode() + b"".join(v.tobytes() for v in values)).hexdigest()


def write_datasets(group: h5py.Group, reference: Reference) -> None:
    """hkl (with ndiv, cell and space group), F0 and scale as datasets of an HDF5 group."""
    reflections = reference.reflections
    group["hkl"] = np.asarray(reflections.hkl, "<i4")
    group["hkl"].attrs.update(ndiv=reflections.ndiv, cell=reflections.cell, space_group=reflections.space_group)
    group["F0"] = np.ascontiguousarray(reference.mean, "<c16").view("<f8").reshape(-1, 2)
    group["scale"] = np.asarray(reference.scale, "<f8")
    for name in ("F0", "scale"):
        set_units(group[name], AMPLITUDES)


def read_datasets(group: h5py.Group) -> Reference:
    """Read the reference that ``write_datasets`` wrote."""
    hkl = group["hkl"]
    ndiv, cell = tuple(map(int, hkl.attrs["ndiv"])), tuple(map(float, hkl.attrs["cell"]))
    reflections = Reflections(hkl[:].astype(np.int32), ndiv, cell, str(hkl.attrs["space_group"]))
    return Reference(reflections, group["F0"][:].view(np.complex128)[:, 0], group["scale"][:])


NOTHING = 1e-7  # deviations below so many scales are rounding of F: their squares are 1e-14 of the diffuse intensity


class Encoding(NamedTuple):
    """The encoding of structure factors. mantissa_bits: float32 mantissas rounded to so many bits, or None."""

    dtype: str = "float16"
    mantissa_bits: int | None = None
    compression: str = "none"

    @property
    def storage(self) -> np.dtype:
        """The type of one real number of a pair."""
        return np.dtype("<f2" if self.dtype == "float16" else "<f4")


def centred_pairs(F_th: np.ndarray, reference: Reference, encoding: Encoding) -> np.ndarray:
    """(F - F0) / s as real pairs [n, H, 2] in the encoding's type; raises InputError on overflow or NaN."""
    delta = np.ascontiguousarray(F_th - reference.mean, dtype=np.complex128)
    parts = delta.view(np.float64).reshape(*F_th.shape, 2)
    parts *= (1 / reference.scale)[:, None]  # as complex numbers this division takes several times as long
    nothing = np.einsum("thi,thi->th", parts, parts) < NOTHING**2
    if nothing.any():
        delta[nothing] = 0  # frames that are the same are stored as the same
    with np.errstate(over="ignore"):
        pairs = parts.astype(encoding.storage)
    if not finite(pairs):
        row, column = np.argwhere(~np.isfinite(pairs))[0][:2]
        raise InputError(
            f"structure factor F{tuple(reference.reflections.hkl[column].tolist())} = {F_th[row, column]}"
            f" is not a number, or lies {abs(delta[row, column]):.3g} scales from the reference,"
            f" beyond {encoding.dtype}",
            remedy="repair the frame; if its values are right, raise [prepare] sample or set dtype = 'complex64'",
        )
    return pairs if encoding.mantissa_bits is None else round_mantissa(pairs, encoding.mantissa_bits)


def finite(pairs: np.ndarray) -> bool:
    """Return True if no exponent is all ones; for float16 many times faster than ``np.isfinite``."""
    word, exponent = {2: (np.uint16, 0x7C00), 4: (np.uint32, 0x7F800000)}[pairs.itemsize]
    return not np.any((pairs.view(word) & word(exponent)) == exponent)


def restored(pairs: np.ndarray, reference: Reference) -> np.ndarray:
    """F [n, H] complex128 from stored pairs [n, H, 2]."""
    values = np.ascontiguousarray(pairs, dtype=np.float64).view(np.complex128)[..., 0]
    return values * reference.scale + reference.mean


def round_mantissa(values: np.ndarray, bits: int) -> np.ndarray:
    """float32 rounded to ``bits`` mantissa bits (nearest, ties away from zero), so that they compress."""
    dropped = 23 - bits
    if dropped == 0:
        return values
    raw = np.ascontiguousarray(values, "<f4").view(np.uint32)
    half = np.uint32(1 << (dropped - 1))
    mask = np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
    return ((raw + half) & mask).view("<f4")
