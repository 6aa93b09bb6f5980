"""Two water molecules: a topology, and the System of rigid TIP3P as far as hpcfit reads it, masses and constraints."""

from __future__ import annotations

from pathlib import Path

NAMES = ("O", "H1", "H2")
MASSES = (15.99943, 1.007947, 1.007947)
DISTANCES = {(0, 1): 0.09572, (0, 2): 0.09572, (1, 2): 0.15139}  # nm, of TIP3P
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
