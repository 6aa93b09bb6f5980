"""The [problem] table of kind "structure": an energy, where replicas begin, and the methods that minimise it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from hpcfit.config.table import (
    MOST,
    Count,
    FilePath,
    Kelvin,
    NonNegative,
    Positive,
    ProblemTable,
    Repeats,
    Share,
    Table,
    Whole,
    changed,
    check_are_unique,
    file_of_function,
    function_beside_config,
    relative_to_config,
)

if TYPE_CHECKING:
    from hpcfit.config import Config

MaybeFile = FilePath | None


def _file_or_sequence(table: Any) -> Any:
    if (table.sequence is None) == (table.file is None):
        raise ValueError(f"a {table.form} has a `sequence` or a `file`: give just one of them")
    return table


class LoopsConfig(Table):
    """The energy of a chain whose nodes are tied to the next one and, weakly, to the tenth (Dehmamy and others 2024).

    n: nodes; bonded: next nodes by springs, else by attraction; permuted: seed of the labels of the nodes. cutoff: of
    the repulsion while the energy is minimised, for large n; ends and energies have that of all pairs.
    """

    form: Literal["loops"]
    n: Annotated[int, Field(ge=12, le=MOST)]
    bonded: bool = False
    permuted: Whole = 0
    cutoff: Positive | None = None


class ClusterConfig(Table):
    """The energy of n Lennard-Jones particles, in units of the depth of a pair, sigma = 1."""

    form: Literal["lennard-jones"]
    n: Annotated[int, Field(ge=2, le=MOST)]


class ThomsonConfig(Table):
    """The energy of n equal charges on a sphere of radius 1."""

    form: Literal["thomson"]
    n: Annotated[int, Field(ge=2, le=MOST)]


class SystemEnergyConfig(Table):
    """A System of OpenMM, with the PDB or mmCIF file of its atoms."""

    form: Literal["system"]
    system: FilePath
    topology: FilePath

    _paths = field_validator("system", "topology")(relative_to_config)

    @property
    def files(self) -> dict[str, Path]:
        """The input files, by key."""
        return {"system": self.system, "topology": self.topology}


class ProteinConfig(Table):
    """A protein with force fields that OpenMM ships, by default amber14 with the implicit solvent GBn2: the first model
    of a PDB or mmCIF file, with hydrogens where it lacks them, or a sequence in one-letter code, built by RDKit."""

    form: Literal["protein"]
    file: MaybeFile = None
    sequence: str | None = None
    force_field: Annotated[list[str], Field(min_length=1)] = ["amber14-all.xml", "implicit/gbn2.xml"]

    _path = field_validator("file")(relative_to_config)
    _one = model_validator(mode="after")(_file_or_sequence)

    @property
    def files(self) -> dict[str, Path]:
        """The input file, if there is one."""
        return {} if self.file is None else {"file": self.file}


class PeptideConfig(Table):
    """The simplified protein energy of Dehmamy and others (2024), with constants of our own: of a sequence in
    one-letter code, built extended, or of the first model of a PDB or mmCIF file."""

    form: Literal["peptide"]
    sequence: str | None = None
    file: MaybeFile = None

    _path = field_validator("file")(relative_to_config)
    _one = model_validator(mode="after")(_file_or_sequence)

    @property
    def files(self) -> dict[str, Path]:
        """The input file, if there is one."""
        return {} if self.file is None else {"file": self.file}


class NetworkConfig(Table):
    """Springs between the sites of a PDB, mmCIF or XYZ file within a cut-off (A), at rest where they are.

    atoms: a selection of a file with names, "all" for all of them.
    """

    form: Literal["elastic-network"]
    file: FilePath
    cutoff: Positive = 15.0
    stiffness: Positive = 1.0
    atoms: str = "name CA"

    _path = field_validator("file")(relative_to_config)

    @property
    def files(self) -> dict[str, Path]:
        """The input file."""
        return {"file": self.file}


class SiliconConfig(Table):
    """Stillinger-Weber silicon of cells^3 cubic cells with vacancies, one in each of so many cells on the diagonal."""

    form: Literal["silicon"]
    cells: Annotated[int, Field(ge=1, le=1000)] = 2
    vacancies: Whole = 1


class StokesConfig(Table):
    """Creeping flow in a cavity with a moving lid, the minimum of dissipation, on a grid of so many points a side."""

    form: Literal["stokes"]
    side: Annotated[int, Field(ge=1, le=100_000)]


class FunctionConfig(Table):
    """A function of positions [n, d] in JAX, as FILE.py:function or module:function; it is run as code."""

    form: Literal["function"]
    function: str
    n: Count
    d: Annotated[int, Field(ge=1, le=1000)] = 3

    _function = field_validator("function")(function_beside_config)

    @property
    def files(self) -> dict[str, Path]:
        """The file of the function."""
        file = file_of_function(self.function)
        return {} if file is None else {"function": file}


AnyEnergy = Annotated[
    LoopsConfig
    | ClusterConfig
    | ThomsonConfig
    | SystemEnergyConfig
    | ProteinConfig
    | PeptideConfig
    | NetworkConfig
    | SiliconConfig
    | StokesConfig
    | FunctionConfig,
    Field(discriminator="form"),
]


class StartConfig(Table):
    """The positions that replicas begin at; every method begins with the same.

    kind: "random": normal numbers; "uniform": in a cube; "chain": normal ones that are smooth along the energy's
    couplings (Laplacian-Gaussian); "extended": a zigzag along a loop's chain, or a protein with all phi and psi at 180
    degrees; "file"; "native": the positions that the energy came with; "md": snapshots of its Langevin dynamics at a
    ``temperature`` (K), after ``duration`` ps. scale: width in units of length (0.1 nm of systems), of random ones by
    default that of a ball in which each particle has a unit of volume, of a cube its edge (1.4 n^(1/d), as pele has
    it), of a chain 0.65. file: PDB, mmCIF, XYZ, or .npy [n, d]. noise: normal, added to positions that are the same
    for every replica, in units of length.
    """

    kind: Literal["random", "uniform", "chain", "extended", "file", "native", "md"] = "random"
    scale: Positive | None = None
    file: MaybeFile = None
    noise: NonNegative = 0.0
    temperature: Kelvin = 300.0
    duration: Positive = 10.0

    _WITH: ClassVar[dict[str, tuple[str, ...]]] = {
        "scale": ("random", "uniform", "chain", "extended"), "noise": ("extended", "file", "native"),
        "temperature": ("md",), "duration": ("md",),
    }  # fmt: skip

    _path = field_validator("file")(relative_to_config)

    @property
    def files(self) -> dict[str, Path]:
        """The input files, by key."""
        return {} if self.file is None else {"file": self.file}

    @model_validator(mode="after")
    def _file_is_given(self) -> StartConfig:
        if (self.kind == "file") != (self.file is not None):
            raise ValueError("kind = 'file' and the key `file` belong together: give both or none")
        for key in sorted(changed(self) & self._WITH.keys()):
            if self.kind not in self._WITH[key]:
                raise ValueError(f"{key} = {getattr(self, key)} has no effect on kind = '{self.kind}': leave it out")
        return self


class ModesConfig(Table):
    """The graph whose slow modes methods use.

    source: "couplings" of the energy, or "hessian": norms of the blocks of its Hessian, averaged over ``samples``
    configurations ("auto": so many that the average of a norm is known to a tenth of it) with normal coordinates of
    width ``spread`` (in units of length; "auto": where norms look most like the couplings), or over as many frames of
    the store ``samples_from``, evenly spaced. average: of norms, or of their "squared" ones. cap: of cores, in units
    of sigma. number: of the modes that are written. trajectories: of the slowest of them, files in which the best
    structure, or where no method was asked for the native one or the first start, swings along a mode; amplitude: of
    it, root mean square over particles, in units of length (0.1 nm of systems). solver: of the graph's Laplacian, see
    ``modes.eigensolvers``; "auto" by the number of particles.
    """

    source: Literal["couplings", "hessian"] = "couplings"
    samples: Count | Literal["auto"] = "auto"
    samples_from: MaybeFile = None
    spread: Positive | Literal["auto"] = "auto"
    average: Literal["absolute", "squared"] = "absolute"
    cap: Annotated[float, Field(ge=0, lt=1.12)] = 0.0
    number: Count = 20
    trajectories: Repeats = 3
    amplitude: Positive = 1.0
    solver: Literal["auto", "dense", "shift-invert", "lobpcg", "slepc"] = "auto"

    _OF_HESSIANS: ClassVar[tuple[str, ...]] = ("samples", "samples_from", "spread", "average", "cap")

    _path = field_validator("samples_from")(relative_to_config)

    @model_validator(mode="after")
    def _has_effect(self) -> ModesConfig:
        given = changed(self)
        idle = sorted(given.intersection(self._OF_HESSIANS)) if self.source == "couplings" else []
        if idle:
            raise ValueError(f"modes: {idle[0]} has no effect on source = 'couplings': leave it out")
        if "spread" in given and self.samples_from is not None:
            raise ValueError("modes: spread has no effect on frames of a store (samples_from): leave one of them out")
        if "amplitude" in given and not self.trajectories:
            raise ValueError("modes: amplitude has no effect on trajectories = 0: leave it out")
        if "trajectories" in given and self.trajectories > self.number:
            raise ValueError(f"modes: trajectories = {self.trajectories} of number = {self.number} modes")
        return self


Optimizer = Literal[
    *("lbfgs", "adam", "fire", "annealing", "basin-hopping"),
    *("scipy", "ase", "openmm", "openmm-annealing", "openmm-langevin"),
]
OF_OTHERS = ("scipy", "ase", "openmm", "openmm-annealing", "openmm-langevin")  # optimizers of other libraries
HEATED = ("annealing", "openmm-annealing")


class MethodConfig(Table):
    """A method: coordinates, an optimizer, and how cores are capped.

    parametrisation: "direct", "linear" (``modes`` of the couplings' graph, then all positions), "precond" (all
    positions in the metric of the graph), "gauss-newton" (all positions in the metric of bonds, angles and dihedrals)
    or "gnn" (a network, then all positions). modes: of the slowest (a third of the nodes); "filter": none is computed,
    a polynomial of the graph's Laplacian of a ``degree`` passes the slowest ``passed`` share of them, by products with
    a sparse matrix alone. network: "gcn", "attention" or "mlp", and its ``widths``. share: of the budget that the
    coordinates, or what is hot, take at most before all positions follow, or what minimises.

    homotopy: of pure loops: the energy whose neighbours are held by springs comes first, for ``share`` of the budget at
    most. shared: the replicas of a block share the weights of their network and have latent coordinates of their own.

    cap: the distance, in units of each pair's sigma, within which a pair's potential goes on as a straight line, so
    that particles that lie on each other come apart; the end is minimised without. By default 0.9, 0 of systems and
    proteins. longest: of a step, root mean square over particles, in units of length (0.1 nm of systems); rate: of
    Adam, in these units; clip: of each number of its gradient. tolerance, patience: a replica has ended where its
    energy changed by less, relative, in so many steps.

    temperature: of basin hopping in units of energy (0.8); of annealing and dynamics in K where energies are in kJ/mol
    (1000 where it falls, 298 where it stays), else in units of energy. step: of each coordinate in units of length: of
    a random move of basin hopping (0.4), or of a step of annealing, root mean square at its first temperature (0.02).
    quenches (at most): of basin hopping, which minimises by L-BFGS after random moves.
    """

    name: Annotated[str, Field(pattern=r"^[^/\\]+$")]  # a file is called by it
    parametrisation: Literal["direct", "linear", "precond", "gauss-newton", "gnn"] = "direct"
    optimizer: Optimizer = "lbfgs"
    modes: Count | Literal["filter"] | None = None
    passed: Share = 1 / 3
    degree: Annotated[int, Field(ge=2, le=100_000)] = 60
    network: Literal["gcn", "attention", "mlp"] = "gcn"
    widths: list[Annotated[int, Field(ge=1, le=65_536)]] = [8, 4]
    shared: bool = False
    share: Share = 0.5
    homotopy: bool = False
    cap: Annotated[float, Field(ge=0, lt=1.12)] | None = None
    rate: Positive = 0.02
    network_rate: Positive = 0.002
    clip: Positive | None = 0.1
    longest: Positive = 0.3
    quenches: Count = 10**9
    temperature: Positive | None = None
    step: Positive | None = None
    tolerance: NonNegative = 1e-9
    patience: Annotated[int, Field(ge=1, le=99)] = 5

    # The values that a key has an effect with, of any of these other keys.
    _WITH: ClassVar[dict[str, dict[str, tuple[Any, ...]]]] = {
        "modes": {"parametrisation": ("linear", "gnn")},
        "network": {"parametrisation": ("gnn",)}, "widths": {"parametrisation": ("gnn",)},
        "share": {"parametrisation": ("linear", "gnn"), "optimizer": HEATED, "homotopy": (True,)},
        "shared": {"parametrisation": ("gnn",)}, "network_rate": {"parametrisation": ("gnn",)},
        "rate": {"optimizer": ("adam",)}, "clip": {"optimizer": ("adam",)},
        "longest": {"optimizer": ("lbfgs", "fire", "annealing", "basin-hopping")},
        "quenches": {"optimizer": ("basin-hopping",)},
        "temperature": {"optimizer": ("basin-hopping", *HEATED, "openmm-langevin")},
        "step": {"optimizer": ("basin-hopping", "annealing")},
    }  # fmt: skip

    @model_validator(mode="after")
    def _has_effect(self) -> MethodConfig:
        given = changed(self)
        for key, known in self._WITH.items():
            if key in given and not any(getattr(self, other) in values for other, values in known.items()):
                raise self._idle(key, " and ".join(f"{other} = '{getattr(self, other)}'" for other in known))
        for key in ("network_rate", "shared"):
            if key in given and self.optimizer != "adam":
                raise self._idle(key, f"optimizer = '{self.optimizer}'")
        if "modes" in given and self.parametrisation == "gnn" and self.network != "gcn":
            raise self._idle("modes", f"network = '{self.network}'")
        idle = sorted(given & {"passed", "degree"})
        if idle and self.modes != "filter":
            raise ValueError(f"method '{self.name}': {idle[0]} has no effect without modes = 'filter': leave it out")
        if self.homotopy and (
            self.optimizer not in ("lbfgs", "adam", "fire") or self.parametrisation in ("linear", "gnn")
        ):
            raise ValueError(
                f"method '{self.name}': homotopy goes with all positions, by L-BFGS, Adam or FIRE:"
                f" not with parametrisation = '{self.parametrisation}', optimizer = '{self.optimizer}'"
            )
        if self.parametrisation == "gauss-newton" and self.optimizer in ("adam", "fire"):
            raise ValueError(
                f"method '{self.name}': parametrisation = 'gauss-newton' goes with L-BFGS:"
                f" optimizer = '{self.optimizer}' forgets its way whenever the metric is made anew"
            )
        alone = (*OF_OTHERS, "basin-hopping")
        if self.optimizer in alone or (self.optimizer == "annealing" and self.parametrisation in ("linear", "gnn")):
            idle = sorted(given & {"cap", "tolerance", "patience"}) if self.optimizer in OF_OTHERS else []
            if self.parametrisation != "direct" or idle:
                what = idle[0] if idle else f"parametrisation = '{self.parametrisation}'"
                raise self._idle(what, f"optimizer = '{self.optimizer}'")
        return self

    def _idle(self, key: str, where: str) -> ValueError:
        return ValueError(f"method '{self.name}': {key} has no effect on {where}: leave it out")


class StructureConfig(ProblemTable):
    """The table [problem]: structures of low energy by each of some methods, from the same starts.

    Without any method the slow modes are found alone.

    replicas: starts; block: of them that advance together (as many as are 4000 particles, at least 1). budget:
    gradients of each replica. reference: a structure file that replicas are compared with, by the RMSD of
    ``reference_atoms``, a selection, Cα of proteins by default, else all. written: the replicas of each method, those
    of least energy, in its file of structures.
    """

    without_effect: ClassVar = (
        *("frames", "simulate", "run.precision", "run.gradient", "run.reductions", "optimizer.name"),
        *("optimizer.options", "optimizer.clip_norm", "optimizer.max_steps", "optimizer.gradient_tolerance"),
        *("optimizer.relative_tolerance", "optimizer.patience"),
    )

    kind: Literal["structure"]
    replicas: Count = 10
    block: Count | None = None
    budget: Count = 2000
    reference: MaybeFile = None
    reference_atoms: str | None = None
    written: Count = 1
    energy: AnyEnergy
    start: StartConfig = StartConfig()
    modes: ModesConfig = ModesConfig()
    method: list[MethodConfig] = []

    @property
    def files(self) -> dict[str, Any]:
        """The input files, by table and key."""
        tables = {"energy": self.energy, "start": self.start}
        own = {} if self.reference is None else {"reference": self.reference}
        return own | {f"{name} {key}": path for name, table in tables.items() for key, path in table.files.items()}

    _path = field_validator("reference")(relative_to_config)

    @model_validator(mode="after")
    def _names(self) -> StructureConfig:
        if self.reference is None and self.reference_atoms is not None:
            raise ValueError("reference_atoms has no effect without a `reference`: leave it out")
        if self.written > self.replicas:
            raise ValueError(f"written = {self.written} of {self.replicas} replicas: take at most as many")
        check_are_unique("[[problem.method]]", [one.name for one in self.method])
        return self


def modes_alone(config: Config) -> Config:
    """A config without its methods, so that a run finds the slow modes of its energy alone."""
    return config.model_copy(update={"problem": config.problem.model_copy(update={"method": []})})
