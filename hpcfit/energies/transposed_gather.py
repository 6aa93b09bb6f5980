"""Values of partners, whose derivative is a gather too: XLA's scatter on CPUs is slow.

Partners lie in a table [N, K]: the atoms that stand beside each atom i, one a slot. Their values v[index] are linear
in v; what a cotangent g[i, k] adds to atom j comes from the slots in which j stands. A table that lists these
(`incoming`) makes the transpose a gather as well, and the transpose of that is the first again, so that derivatives
of any order, forwards and backwards, never scatter.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def partner_values(values: jax.Array, index: jax.Array, incoming: jax.Array) -> jax.Array:
    """The values [..., N] of partners, [..., N, K].

    index: [N, K], partners. incoming: [N, M], the flat slots i·K + k in which an atom stands; N·K for none.
    """
    return _out.bind(values, index, incoming, batched=0)


def sum_over_partners(slots: jax.Array, index: jax.Array, incoming: jax.Array) -> jax.Array:
    """The sum of [..., N, K] over all slots in which an atom stands, [..., N]: the transpose of `partner_values`."""
    return _back.bind(slots, index, incoming, batched=0)


def _gather_out(values, index, incoming):
    return jnp.take(values, index, axis=-1, mode="clip")


def _gather_back(slots, index, incoming):
    # By slot, so that its values lie together in memory; the barrier keeps XLA from computing each slot anew.
    lead = slots.shape[:-2]
    by_slot = jax.lax.optimization_barrier(slots.reshape(math.prod(lead), -1).T)
    taken = jnp.take(by_slot, incoming, axis=0, mode="clip")  # [N, M, lead]
    found = jnp.sum(jnp.where((incoming < len(by_slot))[..., None], taken, 0.0), axis=1)
    return found.T.reshape(*lead, len(incoming))


def _implemented(function, *operands, batched):
    for _ in range(batched):
        function = jax.vmap(function)
    return function(*operands)


def _primitive(name: str, function) -> Primitive:
    primitive = Primitive(name)
    plain = partial(_implemented, function)
    primitive.def_impl(plain)

    def abstract(*operands, batched):
        shaped = (jax.ShapeDtypeStruct(operand.shape, operand.dtype) for operand in operands)
        found = jax.eval_shape(partial(plain, batched=batched), *shaped)
        return jax.core.ShapedArray(found.shape, found.dtype)

    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(plain, multiple_results=False))
    batching.primitive_batchers[primitive] = partial(_batch, primitive)
    return primitive


def _batch(primitive, operands, axes, *, batched):
    """A batch of values alone is one more leading axis; with tables of their own, the first axis of all operands."""
    if axes[1] is batching.not_mapped and axes[2] is batching.not_mapped:
        return primitive.bind(jnp.moveaxis(operands[0], axes[0], batched), *operands[1:], batched=batched), batched
    size = next(operand.shape[axis] for operand, axis in zip(operands, axes) if axis is not batching.not_mapped)
    moved = [batching.bdim_at_front(operand, axis, size) for operand, axis in zip(operands, axes)]
    return primitive.bind(*moved, batched=batched + 1), 0


def _transposes(primitive, other):
    """Linear in the first operand, with `other` as its transpose."""

    def forward(primals, tangents, *, batched):
        value = primitive.bind(*primals, batched=batched)
        tangent = tangents[0]
        if isinstance(tangent, ad.Zero):
            return value, ad.Zero(jax.core.get_aval(value).to_tangent_aval())
        return value, primitive.bind(tangent, *primals[1:], batched=batched)

    def backward(cotangent, operand, index, incoming, *, batched):
        return [other.bind(cotangent, index, incoming, batched=batched), None, None]

    ad.primitive_jvps[primitive] = forward
    ad.primitive_transposes[primitive] = backward


_out, _back = _primitive("partner_values", _gather_out), _primitive("sum_over_partners", _gather_back)
_transposes(_out, _back)
_transposes(_back, _out)
