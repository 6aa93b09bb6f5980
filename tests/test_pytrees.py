"""Dataclasses as pytrees: what are leaves, what is structure, and that JAX takes no class for another."""

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import pytest

from hpcfit.kinds.frame_weights.objectives import CrossEntropy, Pearson
from hpcfit.pytrees import pytree


@pytree
@dataclass(frozen=True)
class Line:
    slope: Any
    name: str = field(metadata={"static": True})
    offset: Any = 0.0


def scaling(factor: int) -> type:
    """A class of its own, whose objects have no fields and multiply by ``factor``."""

    class Scaling:
        def __call__(self, x: Any) -> Any:
            return factor * x

    return pytree(dataclass(frozen=True)(Scaling))


def test_fields_are_leaves_in_their_order_and_static_ones_structure():
    line = Line(2.0, "a", 3.0)
    leaves, structure = jax.tree.flatten(line)
    assert leaves == [2.0, 3.0]
    assert jax.tree.unflatten(structure, leaves) == line
    assert structure == jax.tree.structure(Line(5.0, "a"))
    assert structure != jax.tree.structure(Line(2.0, "b", 3.0))


def test_a_path_names_the_field():
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path({"here": Line(2.0, "a")})]
    assert paths == ["['here'].slope", "['here'].offset"]


@pytest.mark.parametrize(
    "pair", [(scaling(1)(), scaling(2)()), (Pearson(), CrossEntropy())], ids=["made", "objectives"]
)
def test_classes_with_the_same_fields_are_different_structures(pair):
    one, other = map(jax.tree.structure, pair)
    assert one == jax.tree.structure(type(pair[0])())
    assert one != other


def test_a_compiled_function_runs_for_the_class_it_was_compiled_for():
    """With ``jax.tree_util.register_dataclass`` one of twelve calls ran what was compiled for another class."""
    apply = jax.jit(lambda one, x: one(x))
    assert [float(apply(scaling(k)(), np.float64(1))) for k in range(30)] == list(range(30))
