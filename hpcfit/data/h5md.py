"""Positions, forces, box and time of a shard in the H5MD 1.1 layout, which MDAnalysis and others open.

de Buyl, Colberg and Hofling, Comput. Phys. Commun. 185, 1546 (2014), 10.1016/j.cpc.2014.01.018.
"""

from __future__ import annotations

from collections.abc import Sequence

import h5py
import numpy as np

from hpcfit import __version__
from hpcfit.data.frame import Frame
from hpcfit.errors import InputError

UNITS = {"position": "Angstrom", "force": "kJ mol-1 Angstrom-1", "box/edges": "Angstrom"}


class TrajectoryWriter:
    """Adds what the frames carry beside structure factors; a file whose frames carry nothing stays without H5MD."""

    def __init__(self, file: h5py.File, n_frames: int):
        self._file, self._n_frames = file, n_frames

    def write(self, start: int, frames: Sequence[Frame]) -> None:
        """Write the frames from row ``start`` on; either all frames of a shard carry positions or none does."""
        if frames[0].positions is None:
            return
        if "particles" not in self._file:
            self._create(frames[0])
        group = self._file["particles/trajectory"]
        stop = start + len(frames)
        group["step"][start:stop] = [frame.index for frame in frames]
        group["time"][start:stop] = [frame.index if frame.time is None else frame.time for frame in frames]
        for name, values in _elements(frames).items():
            group[f"{name}/value"][start:stop] = values

    def _create(self, frame: Frame) -> None:
        header = self._file.create_group("h5md")
        header.attrs["version"] = (1, 1)
        header.create_group("author").attrs["name"] = "hpcfit"
        header.create_group("creator").attrs.update(name="hpcfit", version=__version__)
        group = self._file.create_group("particles/trajectory")
        group.create_group("box").attrs.update(
            dimension=3, boundary=["periodic" if frame.box is not None else "none"] * 3
        )
        step, time = (
            group.create_dataset("step", (self._n_frames,), "<i8"),
            group.create_dataset("time", (self._n_frames,), "<f8"),
        )
        time.attrs["unit"] = "ps"
        for name, values in _elements([frame]).items():
            self._create_element(group.create_group(name), values, UNITS[name], step=step, time=time)

    def _create_element(self, group: h5py.Group, values: np.ndarray, unit: str, *, step, time) -> None:
        shape = (self._n_frames, *values.shape[1:])
        group.create_dataset("value", shape, "<f4", chunks=(1, *values.shape[1:])).attrs["unit"] = unit
        group["step"], group["time"] = step, time  # hard links: H5MD lets elements share them


def _elements(frames: Sequence[Frame]) -> dict[str, np.ndarray]:
    """The time-dependent elements that the first frame has, as [frames, ...] arrays by their H5MD name."""
    for attribute in ("positions", "forces", "box"):
        have = [getattr(frame, attribute) is not None for frame in frames]
        if any(have) != all(have):
            frame = frames[have.index(not have[0])]
            raise InputError(
                f"frame {frame.index} has {'no ' * have[0]}{attribute}, unlike those before it",
                remedy="repair the trajectory, or set [prepare] positions = false",
            )
    names = {"position": "positions", "force": "forces", "box/edges": "box"}
    return {
        name: np.stack([getattr(frame, attribute) for frame in frames])
        for name, attribute in names.items()
        if getattr(frames[0], attribute) is not None
    }
