"""The kinds of problems there are: the only list.

An entry names its parts as text, `module:name`, and each is imported when it is first asked for: reading a config or
printing help loads neither NumPy nor JAX. A package of its own adds a kind through the entry-point group
`hpcfit.kinds`: the name of the entry point is the kind's, its value a ``Kind``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hpcfit.config import Config, read_config
from hpcfit.config.table import changed
from hpcfit.errors import InputError, nearest

if TYPE_CHECKING:
    from hpcfit.kinds.base import Case
    from hpcfit.ranks import Ranks
    from hpcfit.report.report import Contents

GROUP = "hpcfit.kinds"  # of entry points


@dataclass(frozen=True)
class Metric:
    """A number that fits report, as tables and figures show it.

    title, unit: "" where sweep.csv alone has it. digits: significant ones, or how else it is written: a correlation has
    as many as tell it from 1. better: which way, where points of a sweep may be chosen by it, and chooses: why they
    may. brief: it stands in the few columns that a terminal has room for.
    """

    name: str
    title: str = ""
    unit: str = ""
    digits: int | Literal["correlation", "whole", "duration"] = 3
    better: Literal["more", "less"] | None = None
    chooses: str = ""
    brief: bool = False

    @property
    def head(self) -> str:
        """The head of a column, with the unit."""
        return ", ".join(filter(None, [self.title, self.unit]))


@dataclass(frozen=True)
class Kind:
    """One kind of problem: a line about it, and its parts as text.

    config: the ``ProblemTable``. open: a function of a Config that gives the ``Case``. study: (case, fits) -> what was
    found beside the result, collective. write_results: (run directory, case, result, facts) -> metrics, collective.
    headline: metrics -> lines for the log. report: the ``Contents`` of a report. rounds: a function of a Config that
    gives ``kinds.base.Rounds``, where there are any. modes: a function that turns a Config into that of `hpcfit modes`,
    where slow modes can be found alone. export: a function of ``RunFiles``, a path and ``Wanted`` that writes the file
    of `hpcfit export`, where a finished run has any to write. files: the names of those that a run leaves beside what
    every run does. seeded: overrides of a config without which a seed would change nothing.

    A kind that is asked in several ways has variants: ``choice`` is the key of [problem] that tells them apart, and
    ``variants`` have the parts by its values. The kind has parts itself only where the key may be left out: for its
    value ``usual``.
    """

    about: str
    config: str = ""
    open: str = ""
    study: str = ""
    write_results: str = ""
    headline: str = ""
    report: str = ""
    rounds: str = ""
    modes: str = ""
    export: str = ""
    files: Sequence[str] = ()
    seeded: Sequence[str] = ()
    metrics: Sequence[Metric] = ()
    choice: str = ""
    usual: str = ""
    variants: Mapping[str, Kind] = field(default_factory=dict)

    @property
    def package(self) -> str:
        """The package that the kind is kept in, with its README."""
        config = self.config or next(iter(self.variants.values())).config
        return ".".join(config.partition(":")[0].split(".")[: -1 if self.config else -2])

    def of(self, problem: Mapping[str, Any]) -> Kind:
        """The variant that a [problem] table asks for, with files and metrics of the kind. Raises InputError where the
        table does not say, or there is none."""
        value = problem.get(self.choice, self.usual or None)
        if not self.variants or (self.config and value == self.usual):
            return self
        known = ", ".join([self.usual, *self.variants] if self.usual else self.variants)
        key = f"problem.{self.choice}"
        if value is None:
            raise InputError(f"missing key '{key}'", remedy=f"add {self.choice} = one of {known}")
        if value not in self.variants:
            raise InputError(
                f"'{key}' = {value!r}: {nearest(str(value), known.split(', '))}", remedy=f"use one of {known}"
            )
        return replace(self.variants[value], files=self.files, metrics=self.metrics)

    def part(self, name: str) -> Any:
        """One of the parts, imported."""
        module, _, path = getattr(self, name).partition(":")
        found = importlib.import_module(module)
        for attribute in path.split("."):
            found = getattr(found, attribute)
        return found


SIMULATED = Kind(
    about="frames are simulated: parameters of an energy function are fitted to averages",
    config="hpcfit.kinds.force_field.simulated.config:SimulatedConfig",
    open="hpcfit.kinds.force_field.simulated.given_case:open_case",
    study="hpcfit.kinds.force_field.simulated.study:study",
    write_results="hpcfit.kinds.force_field.simulated.outputs:write_results",
    headline="hpcfit.kinds.force_field.simulated.outputs:headline",
    report="hpcfit.kinds.force_field.simulated.report:CONTENTS",
    rounds="hpcfit.kinds.force_field.simulated.sampling:SampledRounds",
)
TABULATED = Kind(
    about="frames are given as tables: corrections, curves and weights of frames are fitted together",
    config="hpcfit.kinds.force_field.tabulated.config:TabulatedConfig",
    open="hpcfit.kinds.force_field.tabulated.case:TabulatedCase.open",
    study="hpcfit.kinds.force_field.tabulated.study:study",
    write_results="hpcfit.kinds.force_field.tabulated.outputs:write_results",
    headline="hpcfit.kinds.force_field.tabulated.outputs:headline",
    report="hpcfit.kinds.force_field.tabulated.report:CONTENTS",
)
HELD_OUT = "Deviations of geometries held out of the fit can choose between points, those of the fitted ones cannot."
GEOMETRIES = Kind(
    about="geometries are given: parameters of an energy function are fitted to reference energies and forces",
    config="hpcfit.kinds.force_field.geometries.config:StoredConfig",
    open="hpcfit.kinds.force_field.geometries.case:GeometriesCase.open",
    study="hpcfit.kinds.force_field.geometries.study:study",
    write_results="hpcfit.kinds.force_field.geometries.outputs:write_results",
    headline="hpcfit.kinds.force_field.geometries.outputs:headline",
    report="hpcfit.kinds.force_field.geometries.report:CONTENTS",
)
AVERAGES = Kind(
    about="weights of frames such that averages of tables over them agree with experiments, without a map",
    config="hpcfit.kinds.frame_weights.averages.config:AveragesConfig",
    open="hpcfit.kinds.frame_weights.averages.case:AveragesCase.open",
    study="hpcfit.kinds.frame_weights.averages.study:study",
    write_results="hpcfit.kinds.frame_weights.averages.outputs:write_results",
    headline="hpcfit.kinds.frame_weights.averages.outputs:headline",
    report="hpcfit.kinds.frame_weights.averages.report:CONTENTS",
    export="hpcfit.kinds.frame_weights.export:export",
)
KINDS = {
    "frame-weights": Kind(
        about="weights of frames such that the diffuse scattering calculated from them agrees with a measured map",
        config="hpcfit.kinds.frame_weights.config:FrameWeightsConfig",
        open="hpcfit.kinds.frame_weights.case:FrameWeightsCase.open",
        study="hpcfit.kinds.frame_weights.study:study",
        write_results="hpcfit.kinds.frame_weights.outputs:write_results",
        headline="hpcfit.kinds.frame_weights.outputs:headline",
        report="hpcfit.kinds.frame_weights.report:CONTENTS",
        files=(
            *("weights.csv", "weights.h5", "sources.csv", "map.h5", "experiments.csv"),
            *("explained.csv", "profiles.csv"),
        ),
        export="hpcfit.kinds.frame_weights.export:export",
        seeded=('problem.starts=["random"]',),
        choice="data",
        usual="map",
        variants={"averages": AVERAGES},
        metrics=(
            Metric("cc", "CC", digits="correlation", brief=True),
            Metric("cc_anisotropic", "CC, anisotropic", digits="correlation"),
            Metric(
                "cc_free",
                "CC free",
                digits="correlation",
                better="more",
                chooses="CC free is that of the orbits held out of the fit: it can choose between points, CC of the"
                " fitted ones cannot.",
                brief=True,
            ),
            Metric("cc_free_anisotropic", digits="correlation"),
            Metric("ess", "ESS", "frames", brief=True),
            Metric("kl", "KL", "nats"),
            Metric("chi2", "χ²", digits=4),
        ),
    ),
    "force-map": Kind(
        about="force maps from atoms to coarse-grained beads with the least noise, and force fields matched to them",
        config="hpcfit.kinds.force_map.config:ForceMapConfig",
        open="hpcfit.kinds.force_map.case:ForceMapCase.open",
        study="hpcfit.kinds.force_map.study:study",
        write_results="hpcfit.kinds.force_map.outputs:write_results",
        headline="hpcfit.kinds.force_map.outputs:headline",
        report="hpcfit.kinds.force_map.report:CONTENTS",
        files=("maps.h5", "force_map.npy", "potentials.h5", "simulation.h5"),
        metrics=(
            Metric(
                "held_out",
                "held-out mean |F|²",
                "(kJ/mol/Å)²",
                digits=5,
                better="less",
                chooses="The mean square of the mapped forces on blocks of frames that a map was not fitted to: the"
                " noise of a valid map above that of others. It can choose between points, that of the fitted frames"
                " cannot.",
                brief=True,
            ),
            Metric("train", "fitted mean |F|²", "(kJ/mol/Å)²", digits=5, brief=True),
        ),
    ),
    "force-field": Kind(
        about="parameters of an energy function, and weights of its frames, that make ensembles agree with experiments",
        choice="estimator",
        variants={
            "pathwise": SIMULATED,
            "fluctuation": SIMULATED,
            "reweighting": SIMULATED,
            "tabulated": TABULATED,
            "geometries": GEOMETRIES,
        },
        files=(
            *("parameters.csv", "observables.csv", "weights.csv", "derivatives.csv", "gradient.csv", "averages.csv"),
            "geometries.csv",
        ),
        metrics=(
            Metric("chi2", "χ²", digits=4, brief=True),
            Metric(
                "chi2_held_out",
                "χ² held out",
                digits=4,
                better="less",
                chooses="χ² of the data held out of the fit can choose between points, that of the fitted data cannot.",
                brief=True,
            ),
            Metric("energy_rmse_held_out", "energies held out", "kJ/mol", better="less", chooses=HELD_OUT, brief=True),
            Metric("force_rmse_held_out", "forces held out", "kJ/mol/nm", better="less", chooses=HELD_OUT, brief=True),
            Metric("kl_weights", "KL(P‖P_ff)", "nats"),
            Metric("kl_force_field", "KL(P_ff‖P₀)", "nats"),
            Metric("curve_change", "R", "Hz²"),
            Metric("least_ess", "least ESS", "frames", brief=True),
        ),
    ),
    "clusters": Kind(
        about="clusters in trajectories: which there are, how long they live, which ions are in which",
        config="hpcfit.kinds.clusters.config:ClustersConfig",
        open="hpcfit.kinds.clusters.case:ClustersCase.open",
        study="hpcfit.kinds.clusters.study:study",
        write_results="hpcfit.kinds.clusters.outputs:write_results",
        headline="hpcfit.kinds.clusters.outputs:headline",
        report="hpcfit.kinds.clusters.report:CONTENTS",
        files=(
            *("counts.csv", "colormap.csv", "colormap.png", "colormap.pdf", "lifetimes.csv", "kinetics.csv"),
            *("speciation.csv", "series.csv", "sizes.csv", "tracked.csv", "rdf.csv", "energies.csv", "clusters.h5"),
            *("dataset.json", "structures/*.xyz", "predictions.csv", "candidates.csv", "debye_waller.csv"),
            *("self_check.csv", "histogram_observed.csv", "histogram_combined.csv", "predicted/*.xyz"),
            *("conformers/*.xyz", "saxs_traces.csv", "saxs_components.csv", "mixture.csv", "scattering.h5"),
            "box_scattering.csv",
        ),
        metrics=(
            Metric("aggregation", "nodes of a node's cluster", digits=4, brief=True),
            Metric("clusters_a_frame", "clusters a frame", digits=4, brief=True),
            Metric("chi2_red", "χ² a degree of freedom", digits=4),
        ),
    ),
    "structure": Kind(
        about="structures of low energy, found in coordinates of slow modes or of networks, beside strong minimisers",
        config="hpcfit.kinds.structure.config:StructureConfig",
        open="hpcfit.kinds.structure.case:StructureCase.open",
        study="hpcfit.kinds.structure.study:study",
        write_results="hpcfit.kinds.structure.outputs:write_results",
        headline="hpcfit.kinds.structure.outputs:headline",
        report="hpcfit.kinds.structure.report:CONTENTS",
        modes="hpcfit.kinds.structure.config:modes_alone",
        files=("replicas.csv", "traces.csv", "structures.h5", "modes.h5", "mode_[0-9]*.*", "structures/*.*"),
        metrics=(
            Metric(
                "least_energy",
                "least energy",
                digits=8,
                better="less",
                chooses="The least energy that any replica ends at, by the energy itself, without capped cores.",
                brief=True,
            ),
            Metric("median_energy", "median energy", digits=8, brief=True),
            Metric("replicas_at_minimum", "at a minimum", "replicas", digits="whole"),
            Metric("median_gradients", "gradients", digits="whole"),
        ),
    ),
}


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read and validate the config of a run of any kind (see ``config.read_config``)."""
    return read_config(path, overrides, tables_of)


def kind_named(name: str) -> Kind:
    """The kind of that name, of hpcfit or of an installed package. Raises InputError, which lists the known ones."""
    if name in KINDS:
        return KINDS[name]
    packaged = _packaged()
    if name not in packaged:
        known = names()
        raise InputError(
            f"'problem.kind' = {name!r}: no kind of problem has this name; {nearest(str(name), known)}",
            remedy=f"use one of {', '.join(known)}",
        )
    return _loaded(packaged[name])


def kind_of(config: Config) -> Kind:
    """The kind of a config's problem, or the variant of it that it asks for: what has the parts."""
    return kind_named(config.problem.kind).of(config.problem.model_dump())


def names() -> list[str]:
    """The names of all kinds; nothing is imported."""
    return sorted(KINDS.keys() | _packaged().keys())


def tables_of(problem: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """[problem] and the other tables that the kind of a [problem] owns; of None the tables that any kind owns. See
    ``read_config``."""
    if problem is None:
        tables = [one.part("config") for name in names() for one in _with_parts(kind_named(name))]
        return {name: table for owner in reversed(tables) for name, table in owner.owns.items()}
    table = kind_named(problem["kind"]).of(problem).part("config")
    return {"problem": table, **table.owns}


def open_case(config: Config, ranks: Ranks) -> Case:
    """The case that the config describes; every input that root reads is checked, and an error is one on all ranks."""
    return ranks.on_root(lambda: kind_of(config).part("open")(config))


def files_left(kind: Kind) -> set[str]:
    """The files that a run of this kind, or of any that comes with hpcfit, leaves beside what every run does."""
    return {file for one in (*KINDS.values(), kind) for file in one.files}


def report_of(problem: Mapping[str, Any]) -> Contents:
    """The sections of the report of a run with this [problem]."""
    return kind_named(problem["kind"]).of(problem).part("report")


def check_config(config: Config, command: str) -> None:
    """Raise InputError for what the tables alone cannot know: missing tables, tables without effect, and an optimizer
    that there is not, or that cannot search this problem."""
    from hpcfit.fit.optimizers import choose_optimizer

    config.require_fit(command=command)
    for name in config.problem.without_effect:
        _check_is_unused(config, name)
    chosen = config.optimizer
    optimizer = choose_optimizer(chosen.name, chosen.options, chosen.clip_norm, inner=None)
    config.problem.check_optimizer(chosen.name, optimizer.space)


def _check_is_unused(config: Config, name: str) -> None:
    """Raise InputError where a table, or a key that is not at its default, is given and has no effect."""
    table, _, key = name.partition(".")
    found = getattr(config, table, None)
    if found is None or (key and key not in changed(found)):
        return
    what = f"[{table}] {key} = {getattr(found, key)!r}" if key else f"[{table}]"
    raise InputError(
        f"{what} has no effect on [problem] kind = '{config.problem.kind}'",
        remedy="leave it out",
    )


def _with_parts(kind: Kind) -> Sequence[Kind]:
    """The kind itself, if it has parts, and its variants."""
    return [*([kind] if kind.config else []), *kind.variants.values()]


@cache
def _packaged() -> dict[str, EntryPoint]:
    """The entry points of installed packages by name; none is loaded."""
    return {point.name: point for point in entry_points(group=GROUP)}


@cache
def _loaded(point: EntryPoint) -> Kind:
    """The entry of a package. Raises InputError where it cannot be imported, or is none."""
    where = f"the entry point {point.name} = {point.value} of group {GROUP}"
    try:
        kind = point.load()
    except (ImportError, AttributeError) as error:
        remedy = "install its package again, or remove it"
        raise InputError(f"{where} cannot be loaded: {error}", remedy=remedy) from error
    if not isinstance(kind, Kind):
        found = type(kind).__name__
        raise InputError(f"{where} is a {found}, not a hpcfit.kinds.table.Kind", remedy="correct its package")
    return kind
