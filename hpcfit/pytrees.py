"""Dataclasses as pytrees of JAX, which tells their classes apart, and the leaves of trees that have tangents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import jax

Class = TypeVar("Class", bound=type)


def pytree(cls: Class) -> Class:
    """Register a dataclass as a pytree: its fields are the children, those with ``metadata={"static": True}`` are part
    of the structure and must be hashable.

    It stands in for ``jax.tree_util.register_dataclass``. To jax 0.10.1 the structures of two classes registered there
    are equal where their fields are, though their hashes differ. A cache of JAX that compares two entries in spite of
    that takes one class for the other: with 18 of 1000 pairs of classes ``jax.jit`` ran what it had compiled for the
    first with the second.
    """
    children = tuple(f.name for f in fields(cls) if not f.metadata.get("static"))
    static = tuple(f.name for f in fields(cls) if f.metadata.get("static"))
    keys = tuple(jax.tree_util.GetAttrKey(name) for name in children)

    def flattened(one: Any) -> tuple:
        return tuple([getattr(one, name) for name in children]), tuple([getattr(one, name) for name in static])

    def with_keys(one: Any) -> tuple:
        values, structure = flattened(one)
        return tuple(zip(keys, values)), structure

    def made(structure: tuple, values: tuple) -> Any:
        return cls(**dict(zip(static, structure)), **dict(zip(children, values)))

    jax.tree_util.register_pytree_with_keys(cls, with_keys, made, flattened)
    return cls


def with_tangents(tree: Any, tangents: Any) -> tuple[Callable[[dict[int, Any]], Any], dict[int, Any], dict[int, Any]]:
    """The leaves of a tree that have a tangent, for a rule of ``jax.custom_jvp`` with symbolic zeros: a function that
    makes the tree from these leaves by number and all others as they are, the leaves, and their tangents."""
    leaves, structure = jax.tree.flatten(tree)
    is_zero = lambda tangent: isinstance(tangent, jax.custom_derivatives.SymbolicZero)  # noqa: E731
    along = {n: tangent for n, tangent in enumerate(jax.tree.leaves(tangents, is_leaf=is_zero)) if not is_zero(tangent)}
    made = lambda moved: structure.unflatten([moved.get(n, leaf) for n, leaf in enumerate(leaves)])  # noqa: E731
    return made, {n: leaves[n] for n in along}, along
