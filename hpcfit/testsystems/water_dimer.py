"""Two water molecules: a topology, the System of rigid TIP3P as far as hpcfit reads it (masses and constraints), and
Systems of TIP3P in a harmonic field, rigid and flexible, for OpenMM to run.

Two TIP3P molecules in a field that keeps them together are what the authors of least-noise force maps compared maps on
(10.1021/acs.jpclett.3c00444). OpenMM is imported inside the functions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

NAMES = ("O", "H1", "H2")
MASSES = (15.99943, 1.007947, 1.007947)
DISTANCES = {(0, 1): 0.09572, (0, 2): 0.09572, (1, 2): 0.15139}  # nm, of TIP3P
FIELD = 3.0  # kJ/mol/nm^2: each atom has the energy FIELD r^2 / 2
ANGLE = 104.52  # degrees, H-O-H
_CRYST1 = "CRYST1{:9.3f}{:9.3f}{:9.3f}{:7.2f}{:7.2f}{:7.2f} P 1           1"


def write_topology(path: Path, molecules: int = 2, positions=None, cell: tuple[float, ...] | None = None) -> Path:
    """Write a PDB of so many water molecules, in the order O H H; positions [n, 3] and cell in A and degrees."""
    lines = [] if cell is None else [_CRYST1.format(*cell)]
    for atom in range(3 * molecules):
        name, place = NAMES[atom % 3], (0.0, 0.0, 0.0) if positions is None else positions[atom]
        where = "".join(f"{x:8.3f}" for x in place)
        residue = atom // 3 + 1
        lines.append(f"HETATM{atom + 1:5d}  {name:<3} HOH A{residue:4d}    {where}  1.00  0.00          {name[0]:>2}  ")
    path.write_text("\n".join([*lines, "END", ""]))
    return path


def write_system(path: Path, molecules: int = 2) -> Path:
    """Write a System of rigid molecules without forces, as OpenMM serializes one."""
    particles = "".join(f'<Particle mass="{mass}"/>' for _ in range(molecules) for mass in MASSES)
    rows = [
        f'<Constraint d="{distance}" p1="{3 * number + a}" p2="{3 * number + b}"/>'
        for number in range(molecules)
        for (a, b), distance in DISTANCES.items()
    ]
    path.write_text(
        '<?xml version="1.0" ?><System openmmVersion="8.6.1" type="System" version="1">'
        '<PeriodicBoxVectors><A x="2" y="0" z="0"/><B x="0" y="2" z="0"/><C x="0" y="0" z="2"/></PeriodicBoxVectors>'
        f"<Particles>{particles}</Particles><Constraints>{''.join(rows)}</Constraints><Forces/></System>\n"
    )
    return path


def molecule() -> np.ndarray:
    """Positions of O, H and H in A, the oxygen at the origin, in the plane z = 0."""
    bond, half = 10 * DISTANCES[0, 1], np.radians(ANGLE / 2)
    x, y = bond * np.cos(half), bond * np.sin(half)
    return np.array([[0.0, 0.0, 0.0], [x, y, 0.0], [x, -y, 0.0]])


def write_rigid(folder: Path) -> None:
    """Write what the demo simulates: dimer.pdb and rigid.xml, the System of rigid molecules in the harmonic field."""
    _write_text(folder / "rigid.xml", field_system(_write_dimer(folder), rigid=True))


def _write_dimer(folder: Path) -> Path:
    apart = np.array([1.5, 0.0, 0.0])
    return write_topology(folder / "dimer.pdb", 2, np.concatenate([molecule() - apart, molecule() + apart]))


def write_simulated(folder: Path) -> tuple[Path, dict[str, Path]]:
    """Write what `hpcfit simulate` runs: a topology, and the Systems "rigid" and "flexible" in the harmonic field."""
    topology = _write_dimer(folder)
    return topology, {
        name: _write_text(folder / f"{name}.xml", field_system(topology, rigid=name == "rigid"))
        for name in ("rigid", "flexible")
    }


def field_system(topology: Path, *, rigid: bool) -> str:
    """TIP3P without cut-off in the field, as OpenMM serializes it; the centre of mass moves as the field has it."""
    import openmm
    from openmm import app

    forces = app.ForceField("tip3p.xml")
    system = forces.createSystem(
        app.PDBFile(str(topology)).topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=rigid,
        removeCMMotion=False,
    )  # fmt: skip
    field = openmm.CustomExternalForce(f"{FIELD / 2}*(x^2 + y^2 + z^2)")
    for atom in range(system.getNumParticles()):
        field.addParticle(atom)
    system.addForce(field)
    return openmm.XmlSerializer.serialize(system)


def _write_text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
