"""Prior weights of frames: what they are before the experiment is looked at."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcfit.config import BLOCK_FRAMES
from hpcfit.errors import InputError, check_is_file
from hpcfit.readers.tables import strict_number
from hpcfit.store.catalog import Block, Store


@dataclass(frozen=True)
class Prior:
    """ids: [T] ascending frame ids. log_weight: [T], ln of weights that sum to 1."""

    ids: np.ndarray
    log_weight: np.ndarray

    def log_weights(self, blocks: Sequence[Block]) -> np.ndarray:
        """ln of the prior weights of the frames of some blocks, [blocks, 64]; 0 where there is no frame."""
        rows = np.zeros((len(blocks), BLOCK_FRAMES))
        for row, block in zip(rows, blocks):
            first = np.searchsorted(self.ids, block.first_id)
            row[: block.frames] = self.log_weight[first : first + block.frames]
        return rows

    def digest(self) -> str:
        """Identifies the prior in a checkpoint."""
        return hashlib.sha256(self.ids.tobytes() + self.log_weight.tobytes()).hexdigest()[:16]


def open_prior(choice: str | Path, store: Store, blocks: Sequence[Block]) -> Prior:
    """The prior that the config names.

    "uniform"; "equal-sources" or "equal-labels", where every source or label has the same sum; or the path of a CSV
    file with columns frame and weight, as the weights.csv of an earlier run. Raises InputError naming file and frames.
    """
    ids = np.concatenate([np.arange(block.first_id, block.first_id + block.frames) for block in blocks])
    order = np.argsort(ids)
    weight = _from_file(choice, ids) if isinstance(choice, Path) else _by_group(choice, store, blocks)
    return Prior(ids[order], np.log(weight[order] / weight.sum()))


def _by_group(choice: str, store: Store, blocks: Sequence[Block]) -> np.ndarray:
    """[T] in the order of the blocks."""
    shards = [store.shards[block.shard] for block in blocks]
    groups = {
        "uniform": [""] * len(shards),
        "equal-sources": [shard.source for shard in shards],
        "equal-labels": [shard.label or shard.source for shard in shards],
    }[choice]
    group = np.repeat(np.unique(groups, return_inverse=True)[1], [block.frames for block in blocks])
    return 1 / np.bincount(group)[group]


def _from_file(path: Path, ids: np.ndarray) -> np.ndarray:
    check_is_file(path, "[problem] prior", "give a CSV file, or 'uniform'")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [(int(row["frame"]), strict_number(row["weight"])) for row in csv.DictReader(file)]
    except OSError as error:
        raise InputError(f"[problem] prior {path}: {error.strerror}", remedy="give a CSV file, or 'uniform'") from None
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise InputError(
            f"[problem] prior {path}: no columns of numbers named frame and weight ({error})",
            remedy="write a header line with frame,weight, as in the weights.csv of a run",
        ) from None
    found = dict(rows)
    if len(found) < len(rows):
        frame = next(frame for frame, times in Counter(frame for frame, _ in rows).items() if times > 1)
        weights = [weight for other, weight in rows if other == frame]
        raise InputError(
            f"[problem] prior {path} has frame {frame} {len(weights)} times, with the weights"
            f" {', '.join(f'{weight:g}' for weight in weights)}",
            remedy="leave one row for each frame",
        )
    missing = [i for i in ids.tolist() if i not in found]
    if missing:
        raise InputError(
            f"[problem] prior {path} has weights of {len(found)} frames, but not of frame {missing[0]}"
            f" ({len(missing)} of {len(ids)} frames of the fit are missing)",
            remedy="give a weight to every frame of the fit, or choose the frames with [frames] include and exclude",
        )
    weight = np.array([found[i] for i in ids.tolist()])
    if not np.all(np.isfinite(weight) & (weight > 0)):
        frame = ids[~(np.isfinite(weight) & (weight > 0))][0]
        raise InputError(
            f"[problem] prior {path}: the weight of frame {frame} is {found[int(frame)]}",
            remedy="prior weights must be positive: leave frames out with [frames] exclude instead",
        )
    return weight
