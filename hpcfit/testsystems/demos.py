"""The demo of each kind of problem: what `hpcfit init KIND --demo FOLDER` has simulated and makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hpcfit.workflow.shipped import shipped


class Demo(NamedTuple):
    """The parts of a demo beside `hpcfit simulate` and `hpcfit prepare`. Both functions get the demo's folder.

    config: the file that becomes FOLDER/config.toml. write_systems: makes what is simulated. simulations: overrides of
    the config, one tuple a call of `hpcfit simulate`; without any, nothing is prepared either. observe: makes the data
    that are fitted to. prepares: what `observe` made is put into a store, too.
    """

    config: Path
    write_systems: Callable[[Path], None]
    simulations: tuple[tuple[str, ...], ...]
    observe: Callable[[Path], Any]
    prepares: bool = False


def crystal() -> Demo:
    """A crystal of alanine dipeptide in two conformations, whose shares are to be found from its diffuse map."""
    from hpcfit.testsystems import crystal_demo

    whole = crystal_demo.Demo()
    return Demo(
        shipped("config/frame_weights.toml"),
        lambda folder: crystal_demo.write_systems(folder / "simulation", whole),
        ((), ("simulate.directory=simulation/truth", "simulate.seed=1")),
        lambda folder: crystal_demo.observe(folder / "simulation", whole),
    )


def dimer() -> Demo:
    """Two rigid waters in a harmonic field, on which the maps of least noise were first compared."""
    from hpcfit.testsystems import water_dimer

    return Demo(shipped("config/water_dimer.toml"), water_dimer.write_rigid, ((),), lambda folder: None)


def argon() -> Demo:
    """Liquid argon whose force field is 5 % off."""
    from hpcfit.testsystems import argon as liquid

    return Demo(shipped("config/force_field.toml"), lambda folder: None, (), liquid.write)


def ensembles() -> Demo:
    """Tables of two molecules whose force field and Karplus curve are wrong by known amounts; nothing is simulated."""
    from hpcfit.testsystems import tabulated_ensembles

    return Demo(shipped("config/force_field_tabulated.toml"), lambda folder: None, (), tabulated_ensembles.write)


def averages() -> Demo:
    """A molecule in two states whose shares scattering, distances and couplings tell; nothing is simulated."""
    from hpcfit.testsystems import averaged_ensembles

    config = shipped("config/frame_weights_averages.toml")
    return Demo(config, lambda folder: None, (), averaged_ensembles.write)


def geometries() -> Demo:
    """Alanine dipeptide whose torsions and charges are off, and frames with the energies of the right force field."""
    from hpcfit.testsystems import stored_geometries

    return Demo(shipped("config/force_field_geometries.toml"), lambda folder: None, (), stored_geometries.write)


def loop() -> Demo:
    """A chain that attracts itself, whose least energy is known; the config is all there is."""
    return Demo(shipped("config/structure.toml"), lambda folder: None, (), lambda folder: None)


def beads() -> Demo:
    """Beads that form clusters, by Brownian dynamics of a few seconds."""
    from hpcfit.testsystems import beads_in_clusters

    return Demo(shipped("config/clusters.toml"), lambda folder: None, (), beads_in_clusters.write, prepares=True)


DEMOS: dict[str, Callable[[], Demo]] = {
    "frame-weights": crystal,
    "frame-weights/averages": averages,
    "force-map": dimer,
    "force-field": argon,
    "force-field/tabulated": ensembles,
    "force-field/geometries": geometries,
    "structure": loop,
    "clusters": beads,
}
