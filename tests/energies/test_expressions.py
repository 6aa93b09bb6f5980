"""Expressions of custom forces: values against OpenMM's own parser, derivatives against differences, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.energies.expressions import parse
from hpcfit.errors import InputError

# x, y in 0.2 … 0.9; every function and operator, precedence, definitions.
TEXTS = (
    "-x^2 + 2^3^2*y - -x",
    "2^-x*3 - x/y/2 - (x - y - 1)",
    "1.5e-1*x + .5*y + 2.*x*1E2",
    "sqrt(x)*exp(-y) + log(x) - recip(y)",
    "sin(x) + cos(y)*tan(x) - sec(x)*csc(y) + cot(x)",
    "asin(x)*acos(y) + atan(x) + atan2(y, x) - atan2(-y, -x)",
    "sinh(x) + cosh(y)*tanh(x) + erf(x) - erfc(y)",
    "step(x - y) + delta(x)*2 + square(x) + cube(y) + abs(x - y)",
    "floor(5*x) + ceil(5*y) + min(x, y) - max(x, y^2)",
    "select(step(x - y), x/y, y^3) + select(0, 1, x) + select(2, y, x)",
    "a*b + c; a = b + x; b = c^2; c = 3*y",
    "f*f; f = g - 1; g = x*y ;",
    "((x))^(1/3) + x^y + y^2.5 + x^(-2)",
)


def by_openmm(text: str, x: float, y: float) -> float:
    """The value of an expression, as the energy of one particle."""
    import openmm

    system = openmm.System()
    system.addParticle(1.0)
    force = openmm.CustomExternalForce(f"{text.rstrip(' ;')} ; unused = z")
    force.addParticle(0, [])
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions([[x, y, 0.0]])
    return context.getState(getEnergy=True).getPotentialEnergy()._value


@pytest.mark.parametrize("text", TEXTS)
def test_values_are_those_of_openmm_and_derivatives_those_of_differences(text):
    expression = parse(text)
    rng = np.random.default_rng(4)
    for x, y in rng.uniform(0.2, 0.9, (3, 2)):
        found = expression({"x": jnp.array(x), "y": jnp.array(y)})
        assert float(found) == pytest.approx(by_openmm(text, x, y), rel=1e-13)
        slope = jax.grad(lambda x, y=y: expression({"x": x, "y": y}))(x)
        h = 1e-5
        by_differences = (by_openmm(text, x + h, y) - by_openmm(text, x - h, y)) / (2 * h)
        assert float(slope) == pytest.approx(by_differences, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize(
    "text",
    [
        "sqrt(x)",
        "select(x, 1/x, 0)",
        "select(x, log(x)*exp(1/x), x^2)",
        "select(step(x - 1), sqrt(x - 1)*acos(2 - x), 0)",
        "select(step(-x), 3, y/x)*step(x - 0.5); y = 1/x^2",
        "x^0.5 + 0*x^1.5",
        "select(x, x*inverse*inverse, 0); inverse = 1/x",
    ],
)
def test_derivatives_are_finite_where_values_are(text):
    expression = parse(text)

    def value(x):
        return expression({"x": x}) + 0.0

    x = jnp.array(0.0)
    assert np.isfinite(value(x))
    assert np.isfinite(jax.grad(value)(x))
    assert np.isfinite(jax.grad(jax.grad(value))(x))
    assert np.isfinite(jax.jvp(jax.grad(value), (x,), (jnp.array(1.0),))[1])


def test_second_derivatives_are_exact():
    expression = parse("4*epsilon*((sigma/r)^12 - (sigma/r)^6)*select(step(r - 1), 2, 1)")

    def u(r):
        return expression({"r": r, "sigma": 0.3, "epsilon": 0.7})

    def by_hand(r):
        return 4 * 0.7 * (12 * 13 * 0.3**12 / r**14 - 6 * 7 * 0.3**6 / r**8)

    assert float(jax.grad(jax.grad(u))(0.35)) == pytest.approx(by_hand(0.35), rel=1e-12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x +", "the end"),
        ("(x + 1", "where ) is expected"),
        ("sine(x)", "sine is no function"),
        ("atan2(x)", "takes 2 arguments, not 1"),
        ("x y", "'y' is not expected"),
        ("x; 3 = y", "is no definition"),
        ("x $ ; a = 2 + ; ", "not expected"),
    ],
)
def test_a_text_that_is_no_expression_is_one_error(text, words):
    with pytest.raises(InputError, match="remedy") as error:
        parse(text, source="CustomBondForce")
    assert words in str(error.value)
    assert "CustomBondForce" in str(error.value)


def test_names_and_arguments_of_tables():
    expression = parse("table(2*kind1, kind2)*a; a = b + c", functions={"table"})
    assert expression.names() == {"kind1", "kind2", "b", "c"}
    assert expression.arguments_of({"table"}) == {"kind1", "kind2"}
