"""The tables [problem.library], [problem.prediction], [problem.placement] and [problem.debye_waller]."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from hpcfit.config.table import (
    FilePath,
    Loose,
    NonNegative,
    Positive,
    Real,
    Repeats,
    Table,
    changed,
    relative_to_config,
)

Share = Annotated[float, Field(ge=0, lt=1)]
Clip = Annotated[tuple[NonNegative, NonNegative], Loose]
SAXSHELL = "saxshell"  # the reference program, whose choices `compatible` takes


class LibraryConfig(Table):
    """The structures that train a prediction. folder: LABEL/*.xyz or .pdb, also LABEL/motif_*/; without it, those kept
    of each label of the trajectory. representative: of a label, the medoid or the first file. through_nodes: labels
    with more nodes train nothing, so that predictions of theirs stand beside what was seen."""

    folder: FilePath | None = None
    representative: Literal["medoid", "first"] = "medoid"
    through_nodes: Annotated[int, Field(ge=1, le=100_000)] | None = None

    _path = field_validator("folder")(relative_to_config)


class RelaxConfig(Table):
    """An energy in which predicted structures are relaxed: Lennard-Jones between atoms of different molecules, with the
    rules of Lorentz and Berthelot, and charges in a continuum. sigma: A, epsilon: kJ/mol, charges: e, by element (0
    where none is given); permittivity: relative, of the continuum."""

    sigma: Annotated[dict[str, Positive], Field(min_length=1)]
    epsilon: Annotated[dict[str, NonNegative], Field(min_length=1)]
    charges: dict[str, Real] = {}
    permittivity: Annotated[float, Field(ge=1, le=1e6)] = 1.0

    @model_validator(mode="after")
    def _has_effect(self) -> RelaxConfig:
        if "permittivity" in changed(self) and not any(self.charges.values()):
            raise ValueError(f"relax.permittivity = {self.permittivity:g} has no effect without charges: leave it out")
        if idle := sorted(set(self.charges) - set(self.sigma)):
            raise ValueError(f"relax.charges has {idle[0]}, which has no sigma: add it there, or leave it out")
        return self


class PlacementConfig(Table):
    """The growth of predicted structures. conformers: further structures of each label, with lengths, angles and
    sources drawn; terms: factors of the terms of the cost (length, angle, contact, coordination, collision, outward),
    0 leaves one out; bridging: "connect": linkers join nodes that are in pieces, "median": they join two nodes only
    where they do so in the median. relax: an energy in which all structures are relaxed; those that come apart in it
    stay as they were grown."""

    conformers: Repeats = 0
    terms: dict[Literal["length", "angle", "contact", "coordination", "collision", "outward"], NonNegative] = {}
    bridging: Literal["connect", "median"] = "connect"
    relax: RelaxConfig | None = None


class DebyeWallerConfig(Table):
    """The estimate of widths of pairs. pairs: all, or those within 1.15 cut-offs; estimator: distances matched by
    rank, by atoms (structures of the same elements in the same order), or pooled about one mean; ddof: taken from the
    number of structures, by default 0 for "rank", else 1."""

    pairs: Literal["all", "first_shell"] = "all"
    estimator: Literal["rank", "identity", "pooled"] = "rank"
    ddof: Literal[0, 1] | None = None


class PredictionConfig(Table):
    """The larger clusters that are predicted, and the models.

    compatible: all choices of the reference program in place of those below. from_nodes, through_nodes: numbers of
    nodes, by default the next two; those that were observed are left out. candidates: of each size; threshold: least
    share of a cluster. model: of mean counts, "auto": the one that best foretells the largest size; weighting: of
    labels, by counts or by stability; scaling, trend: of regressions; mixture_weight: counts, or counts x occupancy;
    mass: of predicted clusters together, by the decay of observed sizes within decay_clip, or by the model. charges: of
    species; a candidate may have charge_per_node for each node.
    """

    compatible: Literal["saxshell"] | None = None
    from_nodes: Annotated[int, Field(ge=2, le=100_000)] | None = None
    through_nodes: Annotated[int, Field(ge=2, le=100_000)] | None = None
    candidates: Annotated[int, Field(ge=1, le=100_000)] = 3
    threshold: Share = 0.02
    model: Literal["auto", "ridge", "elastic_net", "mass_action", "gaussian_process"] = "auto"
    weighting: Literal["count", "saxshell"] = "count"
    scaling: Literal["standardised", "documented"] = "standardised"
    trend: Literal["leak_free", "leaky"] = "leak_free"
    mixture_weight: Literal["number", "occupancy"] = "number"
    mass: Literal["tail", "modelled"] = "tail"
    decay_clip: Clip = (0.0, 0.9)
    charges: dict[str, Real] = {}
    charge_per_node: NonNegative = 0.0

    @property
    def sizes(self) -> tuple[int, ...] | None:
        """The numbers of nodes that are asked for, None for the next two."""
        if self.from_nodes is None or self.through_nodes is None:
            return None
        return tuple(range(self.from_nodes, self.through_nodes + 1))

    @property
    def weighs_mixture(self) -> Literal["number", "occupancy"]:
        """The weights of labels in mixtures."""
        return self.mixture_weight if self.compatible is None else "occupancy"

    @model_validator(mode="after")
    def _no_option_without_effect(self) -> PredictionConfig:
        given = changed(self)
        if (self.from_nodes is None) != (self.through_nodes is None):
            raise ValueError(
                f"from_nodes = {self.from_nodes} and through_nodes = {self.through_nodes}: give both, or neither for"
                " the next two sizes"
            )
        if self.sizes == ():
            raise ValueError(f"from_nodes = {self.from_nodes} is above through_nodes = {self.through_nodes}")
        if self.compatible is not None:
            fixed = sorted(given & {"model", "weighting", "scaling", "trend", "mixture_weight", "mass", "decay_clip"})
            if fixed:
                raise ValueError(
                    f"{fixed[0]} = {getattr(self, fixed[0])} has no effect with compatible = '{self.compatible}', which"
                    " fixes it: leave one of them out"
                )
        if self.mass == "modelled" and "decay_clip" in given:
            raise ValueError(f"decay_clip = {list(self.decay_clip)} has no effect with mass = 'modelled': leave it out")
        if self.decay_clip[0] >= self.decay_clip[1] or self.decay_clip[1] > 1:
            raise ValueError(f"decay_clip = {list(self.decay_clip)}: give a lower and a higher decay, up to 1")
        if "charge_per_node" in given and not self.charges:
            raise ValueError(
                f"charge_per_node = {self.charge_per_node:g} has no effect without charges, for instance"
                " charges = { Pb = 2, I = -1 }"
            )
        return self


OF_PREDICTION = ("library", "placement", "debye_waller")  # tables that [problem.prediction] makes use of


def check_tables(problem: Table) -> None:
    """Raise ValueError for a table or key of a [problem] table that its prediction, or the lack of it, makes
    ineffective."""
    prediction = problem.prediction
    if prediction is None:
        there = [name for name in OF_PREDICTION if name in changed(problem)]
        if there:
            raise ValueError(
                f"[problem.{there[0]}] has no effect without [problem.prediction]: add that table, it may be empty,"
                f" or leave {there[0]} out"
            )
        return
    if problem.scattering is not None and "populations" in changed(problem.scattering):
        raise ValueError(
            "scattering.populations has no effect beside [problem.prediction], whose mixture_weight weighs all labels:"
            " leave it out"
        )
    known = {*problem.node, *problem.linker, *problem.shell}
    strange = sorted(set(prediction.charges) - known)
    if strange:
        raise ValueError(
            f"prediction.charges has {strange[0]}, which is none of {', '.join(sorted(known))}: a charge is that of a"
            " node, linker or shell"
        )
    if prediction.charges and (missing := sorted(known - set(prediction.charges))):
        raise ValueError(f"prediction.charges lacks {missing[0]}: give 0 for what has no charge")
    if prediction.compatible is not None:
        fixed = [
            f"{name}.{key}"
            for name, keys in (("library", {"representative"}), ("placement", {"bridging", "relax"}),
                               ("debye_waller", {"pairs", "estimator", "ddof"}))
            for key in sorted(keys & changed(getattr(problem, name)))
        ]  # fmt: skip
        if fixed:
            raise ValueError(
                f"{fixed[0]} has no effect with prediction.compatible = '{prediction.compatible}', which fixes it:"
                " leave one of them out"
            )
