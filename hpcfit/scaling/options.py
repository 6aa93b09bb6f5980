"""The machine that `hpcfit scaling` predicts for, as options of the command line."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

from cyclopts import Parameter

from hpcfit.errors import InputError


@dataclass(frozen=True)
class Beyond:
    """The machine that the model predicts for, up to 1024 ranks."""

    memory_bandwidth: Annotated[float, Parameter(help="Of a rank's GPU, GB/s.")] = 3000.0
    memory_share: Annotated[
        float | None, Parameter(help="Of it that a step reaches, 0 to 1; by default what it reaches here.")
    ] = None
    network_bandwidth: Annotated[float, Parameter(help="Of a rank, GB/s.")] = 25.0
    latency: Annotated[float, Parameter(help="Of a small message, microseconds.")] = 5.0

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise InputError(
                    f"--{field.name.replace('_', '-')} {value:g}: a machine to predict for has more than 0",
                    remedy="give the figure of its data sheet",
                )
        if (self.memory_share or 0) > 1:
            raise InputError(
                f"--memory-share {self.memory_share:g}: a step cannot reach more than the whole bandwidth, 1",
                remedy="give a share between 0 and 1",
            )
