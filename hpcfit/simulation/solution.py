"""The structure of a `solution` of [[simulate.system]]: a cube of water with salt, made once, by OpenMM's Modeller."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

from hpcfit.config import SimulateConfig, SystemConfig
from hpcfit.log import logger
from hpcfit.physics.openmm_library import import_openmm
from hpcfit.simulation.model import refused
from hpcfit.store.files import write_text


def with_structure(simulate: SimulateConfig, system: SystemConfig) -> SystemConfig:
    """The system with the file of its structure as `topology`, which a solution has in the folder of the simulation."""
    if system.solution is None:
        return system
    return system.model_copy(update={"topology": simulate.directory / f"{system.name}.pdb"})


def write_solutions(simulate: SimulateConfig) -> None:
    """Write the structures of solutions that are not there yet; equal settings give equal bytes. Raises InputError."""
    for system in simulate.system:
        path = with_structure(simulate, system).topology
        if system.solution is not None and not path.exists():
            _write(path, system, simulate.seed)


def _write(path: Path, system: SystemConfig, seed: int) -> None:
    openmm, chosen = import_openmm(), system.solution
    app, unit = openmm.app, openmm.unit
    edges = openmm.Vec3(*[chosen.edge / 10] * 3) * unit.nanometer
    with refused(f"system '{system.name}': a solution cannot be made with {', '.join(system.force_field)}"):
        modeller = app.Modeller(app.Topology(), [] * unit.nanometer)
        before = random.getstate()
        random.seed(seed)  # OpenMM draws the places of ions from the generator of all
        try:
            modeller.addSolvent(
                app.ForceField(*system.force_field), model=chosen.water, boxSize=edges, positiveIon=chosen.cation,
                negativeIon=chosen.anion, ionicStrength=chosen.salt * unit.molar,
            )  # fmt: skip
        finally:
            random.setstate(before)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _pdb(app, modeller))
    names = [residue.name for residue in modeller.topology.residues()]
    logger.info("%s: %s", path, ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names)))


def _pdb(app: Any, modeller: Any) -> str:
    """The structure as text, without the remark that has the date."""
    text = io.StringIO()
    app.PDBFile.writeFile(modeller.topology, modeller.positions, text)
    return "".join(line for line in text.getvalue().splitlines(keepends=True) if not line.startswith("REMARK"))
