"""`force-field` and its files: tables of ensembles and measurements in, the problem on a rank's frames out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hpcfit.config import BLOCK_FRAMES, Config, GridConfig
from hpcfit.errors import InputError
from hpcfit.fit.by_blocks import Reverse
from hpcfit.fit.gradient import Frames
from hpcfit.fit.grid import Grid, Load, Shape, choose_shape
from hpcfit.fit.problem import FrameRows
from hpcfit.fit.reduction import Sum
from hpcfit.kinds.force_field.tabulated.config import CorrectionConfig, CurveConfig, EnsembleConfig, Prices
from hpcfit.kinds.force_field.tabulated.problem import JointFit, Prior, Scales
from hpcfit.observables.curves import CIRCLE, whitening
from hpcfit.observables.frame_tables import (
    DataTables,
    check_alike,
    data_of,
    dealt_folds,
    given_weights,
    open_data,
    stores_of,
)
from hpcfit.readers.tables import NumberTable, open_table
from hpcfit.store.files import sha256_of_file

FLAT = 1e-10  # variance of a term, kT^2, below which nothing can be told of its correction
LIGHT = 0.01  # of the mean weight: frames that weigh less move ln P in the unit of one that weighs this


class Ensemble(NamedTuple):
    """The tables of an ensemble. w0: [T], of sum 1. terms: [K, columns] of 0 and 1, what each correction sums; mean,
    covariance: of the sums over the ensemble, [K] and [K, K]."""

    config: EnsembleConfig
    w0: np.ndarray
    terms: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    data: Sequence[DataTables]

    @property
    def n_frames(self) -> int:
        """Frames."""
        return len(self.w0)

    @property
    def width(self) -> int:
        """The number of averages that all data take."""
        return sum(data.width for data in self.data)

    def centred_terms(self, rows: slice) -> np.ndarray:
        """The sums of terms of some frames without their means, [n, K] kT."""
        if not self.terms.size:
            return np.zeros((len(self.w0[rows]), len(self.terms)))
        return _summed(open_table(self.config.terms).rows(rows), self.terms) - self.mean

    def features(self, rows: slice) -> np.ndarray:
        """The numbers of some frames that all data average, [n, width]."""
        return np.concatenate([data.features(rows) for data in self.data], axis=1)


class Datum(NamedTuple):
    """The names of a datum."""

    ensemble: str
    data: str
    column: str
    held_out: bool


@dataclass(frozen=True)
class TabulatedCase:
    """See ``hpcfit.kinds.base.SteppedCase``. Frames are numbered through the ensembles in their order."""

    block_frames = BLOCK_FRAMES
    n_tiles = 1

    config: Config
    ensembles: Sequence[Ensemble]

    @classmethod
    def open(cls, config: Config) -> TabulatedCase:
        """Open and check all tables."""
        choice = config.problem
        found = [_open_ensemble(one, choice.correction, choice.curve) for one in choice.ensemble]
        _check_terms_vary(choice.correction, found)
        if choice.n_folds:
            dealt_folds([one.data for one in found], choice.n_folds, choice.fold_seed)
        return cls(config, found)

    @property
    def n_frames(self) -> int:
        """Frames of all ensembles."""
        return sum(one.n_frames for one in self.ensembles)

    @property
    def n_blocks(self) -> int:
        """Blocks of frames, the last of them padded."""
        return -(-self.n_frames // BLOCK_FRAMES)

    @property
    def width(self) -> int:
        """The most numbers of a frame that the data of one ensemble average."""
        return max(one.width for one in self.ensembles)

    @property
    def starts(self) -> np.ndarray:
        """The number of the first frame of each ensemble, and that of all frames, [S + 1]."""
        return np.concatenate([[0], np.cumsum([one.n_frames for one in self.ensembles])])

    @property
    def members(self) -> np.ndarray:
        """The number of each frame's ensemble, [T]."""
        return np.repeat(np.arange(len(self.ensembles)), [one.n_frames for one in self.ensembles])

    def data_names(self) -> list[Datum]:
        """The names of all data, in the order of ``problem.Data``."""
        return [
            Datum(one.config.name, data.config.name, name, data.config.held_out)
            for one in self.ensembles
            for data in one.data
            for name in data.frames.names
        ]

    @property
    def validated(self) -> bool:
        """True where some data are a validation set."""
        return any(one.held_out for one in self.data_names())

    # ---- what commands ask (see ``kinds.base``) ---------------------------------------------------------------------

    def load(self) -> Load:
        """One tile, with a sum for each number that is averaged."""
        return Load(self.n_blocks, 1, 8 * BLOCK_FRAMES * self.width, len(self.ensembles) * self.width)

    def shape(self, size: int, grid: GridConfig) -> Shape:
        """All ranks along the frames."""
        return choose_shape(size, grid.frames, grid.slices, self.load())

    def identity(self) -> dict[str, str]:
        """The options of the problem, and what its files hold."""
        choice = self.config.problem
        files = {f"file {key}": sha256_of_file(path)[:16] for key, path in choice.files.items()}
        files |= {f"{one.config.name} {key}": of for one in self.ensembles for key, of in stores_of(one.data).items()}
        return {"problem": choice.model_dump_json(), **files, "run": f"seed {self.config.run.seed}"}

    def summary(self) -> dict[str, Any]:
        """Sizes by name."""
        choice, names = self.config.problem, self.data_names()
        held_out = sum(one.held_out for one in names)
        corrections, curves = (sum(one.fitted for one in t) for t in (choice.correction, choice.curve))
        folds = (
            f", cross-validation of {len(choice.prices)} choices in {choice.n_folds} folds" if choice.n_folds else ""
        )
        return {
            "ensembles": ", ".join(f"{one.config.name} ({one.n_frames} frames)" for one in self.ensembles),
            "data": f"{len(names) - held_out} fitted, {held_out} held out",
            "fitted": f"{corrections} corrections, {curves} curves, a weight a frame",
            "fits": f"1 for the result{folds}, {choice.resamples} resamples for errors",
        }

    def bytes_held(self, grid: Grid) -> int:
        """Bytes of this rank's share of what data average."""
        return 8 * BLOCK_FRAMES * self.width * len(grid.blocks)

    def bytes_summed(self, grid: Grid) -> int:
        """Bytes of the sums of this rank's blocks."""
        return 8 * len(self.ensembles) * self.width * len(grid.blocks)

    def undefined_loss(self) -> InputError:
        """The loss at the start is not a number: the numbers of some data are too large."""
        return InputError(
            "chi2 of the ensembles before any fit is no finite number", remedy="check the units of calculated data"
        )

    # ---- the problem ------------------------------------------------------------------------------------------------

    def gradient(self, grid: Grid, memory: int, add: Sum) -> Reverse:
        """Value and gradient on this rank's frames, which are read here and kept in memory."""
        rows = self._rows(grid)
        first = grid.blocks.start * BLOCK_FRAMES
        features = np.zeros((*rows.ids.shape, self.width))
        flat = features.reshape(-1, self.width)
        for _, one, mine, here in self._parts(grid):
            flat[mine.start - first : mine.stop - first, : one.width] = one.features(here)
        frames = Frames.in_memory(rows, features[None])
        return Reverse(self.problem(self.config.problem.prices[0]), frames, grid, add)

    def problem(self, prices: Prices) -> JointFit:
        """The problem at some prices, with all data that are not held out."""
        choice = self.config.problem
        fixed = np.array([0.0 if one.fitted else one.value for one in choice.correction])
        coefficients = np.array([one.coefficients for one in choice.curve], float).reshape(-1, 3)
        judged = self.validated or choice.n_folds > 0  # of all fits alike: a history has one set of columns
        precision = np.array([0.0 if one.prior is None else one.prior**-2 for one in choice.correction])
        data = data_of([one.data for one in self.ensembles])
        return JointFit(data, prices, self._scales(), fixed, coefficients, len(self.ensembles), judged, precision)

    def _rows(self, grid: Grid) -> FrameRows:
        shape = (len(grid.blocks), BLOCK_FRAMES)
        first, size = grid.blocks.start * BLOCK_FRAMES, shape[0] * shape[1]
        ids = np.full(size, -1, np.int64)
        log_w0, spread, ensemble = np.zeros(size), np.zeros(size), np.zeros(size, np.int64)
        terms = np.zeros((size, len(self.config.problem.correction)))
        for number, one, mine, here in self._parts(grid):
            at = slice(mine.start - first, mine.stop - first)
            w0, taking_part = one.w0[here], one.w0[here] > 0
            ids[at] = np.where(taking_part, np.arange(mine.start, mine.stop), -1)
            log_w0[at] = np.log(np.where(taking_part, w0, 1.0))
            spread[at] = np.where(taking_part, np.maximum(w0, LIGHT / one.n_frames) ** -0.5, 0.0)
            terms[at], ensemble[at] = one.centred_terms(here), number
        flat = Prior(log_w0, spread, terms, ensemble)
        return FrameRows(ids.reshape(shape), self.n_frames, Prior(*(a.reshape(*shape, *a.shape[1:]) for a in flat)))

    def _parts(self, grid: Grid) -> Iterator[tuple[int, Ensemble, slice, slice]]:
        """Each ensemble that has frames on this rank: its number, it, and its frames here, by their numbers among all
        frames and within the ensemble."""
        held = grid.blocks.start * BLOCK_FRAMES, grid.blocks.stop * BLOCK_FRAMES
        for number, (one, start, stop) in enumerate(
            zip(self.ensembles, self.starts.tolist(), self.starts[1:].tolist())
        ):
            low, high = max(start, held[0]), min(stop, held[1])
            if low < high:
                yield number, one, slice(low, high), slice(low - start, high - start)

    def _scales(self) -> Scales:
        choice = self.config.problem
        fitted = [one.fitted for one in choice.correction]
        pooled = np.sum([one.covariance for one in self.ensembles], axis=0)[np.ix_(fitted, fitted)]
        corrections = np.zeros((len(fitted), sum(fitted)))
        corrections[fitted] = whitening(pooled)
        placed = np.eye(len(choice.curve))[:, [one.fitted for one in choice.curve]]
        return Scales(corrections, whitening(CIRCLE), placed)


# ---- tables --------------------------------------------------------------------------------------------------------


def _open_ensemble(
    config: EnsembleConfig, corrections: Sequence[CorrectionConfig], curves: Sequence[CurveConfig]
) -> Ensemble:
    data = [open_data(one, curves) for one in config.data]
    tables = [one.frames for one in data]
    weights, terms = (None if path is None else open_table(path) for path in (config.weights, config.terms))
    tables += [one for one in (weights, terms) if one is not None]
    check_alike(tables, f"ensemble '{config.name}'")
    w0 = given_weights(weights, tables[0].n_rows)
    sums = _sums_of_terms(config, terms, corrections)
    values = np.zeros((len(w0), len(sums))) if terms is None else _summed(terms.rows(slice(None)), sums)
    mean = w0 @ values
    return Ensemble(config, w0, sums, mean, (values - mean).T @ (w0[:, None] * (values - mean)), data)


def _summed(values: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The sums of columns [n, K], added column by column: a product of matrices may round by how many rows it has."""
    found = np.zeros((len(values), len(sums)))
    for number, column in np.argwhere(sums):
        found[:, number] += values[:, column]
    return found


def _sums_of_terms(
    ensemble: EnsembleConfig, terms: NumberTable | None, corrections: Sequence[CorrectionConfig]
) -> np.ndarray:
    """1 where a correction sums a column, [K, columns]."""
    n = 0 if terms is None else len(terms.names)
    sums = np.zeros((len(corrections), n))
    for row, one in zip(sums, corrections):
        for column in one.columns_of(ensemble):
            if column >= n:
                raise InputError(
                    f"correction '{one.name}' sums column {column} of {terms.path}, which has {n} columns (they count"
                    " from 0)",
                    remedy="correct the columns in [[problem.correction]]",
                )
            row[column] = 1.0
    return sums


def _check_terms_vary(corrections: Sequence[CorrectionConfig], ensembles: Sequence[Ensemble]) -> None:
    for number, one in enumerate(corrections):
        if one.fitted and max(ensemble.covariance[number, number] for ensemble in ensembles) < FLAT:
            raise InputError(
                f"correction '{one.name}': its term is the same in all frames, so that no data tell anything of it",
                remedy="leave it out, or correct its columns",
            )
