"""A functional form of one's own: found, checked, and one error for each thing that may be wrong with it."""

import jax
import numpy as np
import pytest

from hpcfit.energies.energy import Energy
from hpcfit.energies.own_form import load_form, require_form
from hpcfit.errors import InputError

SOURCE = """
import jax.numpy as jnp
import numpy as np

def morse(positions, parameters, box):
    r = jnp.linalg.norm(positions[0] - positions[1])
    return parameters["depth"][0] * (1 - jnp.exp(-parameters["a"][0] * (r - 0.1))) ** 2

def vector(positions, parameters, box):
    return positions[:, 0]

def text(positions, parameters, box):
    return "low"

def nan(positions, parameters, box):
    return jnp.log(-jnp.sum(positions**2))

def numpy_form(positions, parameters, box):
    return float(np.sum(np.asarray(positions) ** 2))

def no_gradient(positions, parameters, box):
    return parameters["depth"][0] * 2

def cusp(positions, parameters, box):
    return jnp.sqrt(jnp.sum((positions - positions[0]) ** 2, axis=1)).sum()

def fails(positions, parameters, box):
    return parameters["width"]

constant = 3
"""
POSITIONS = np.array([[0.0, 0.0, 0.0], [0.13, 0.02, 0.0], [0.1, 0.1, 0.2]])
PARAMETERS = {"depth": np.array([40.0]), "a": np.array([12.0])}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "forms.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    return tmp_path


def test_a_form_of_a_file_is_a_term(folder):
    form = load_form("forms.py:morse", folder)
    require_form(form, POSITIONS, PARAMETERS)
    gradient = jax.grad(Energy((form,)))(POSITIONS, PARAMETERS)
    r = np.linalg.norm(POSITIONS[1])
    swing = np.exp(-12 * (r - 0.1))
    assert float(np.linalg.norm(gradient[0])) == pytest.approx(2 * 40 * 12 * (1 - swing) * swing)


def test_a_form_of_a_module_is_a_term(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    require_form(load_form("forms:morse"), POSITIONS, PARAMETERS)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("forms.py", "is no name of a function"),
        ("forms.py:no function", "is no name of a function"),
        ("nowhere.py:morse", "does not exist"),
        ("nowhere_at_all:morse", "module nowhere_at_all cannot be imported"),
        ("broken.py:morse", "fails when loaded: ModuleNotFoundError"),
        ("forms.py:mors", "did you mean 'morse'"),
        ("forms.py:constant", "no function constant"),
    ],
)
def test_a_form_that_is_not_there_is_one_error(folder, name, words):
    with pytest.raises(InputError) as error:
        load_form(name, folder)
    assert words in str(error.value)
    assert error.value.remedy


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vector", "gives an array of shape (3,) where a scalar is expected"),
        ("text", "gives a str where a scalar is expected"),
        ("nan", "is nan at the first positions"),
        ("numpy_form", "has no gradient: TracerArrayConversionError"),
        ("no_gradient", "has no gradient: no position changes it"),
        ("cusp", "the gradient of forms.py:cusp is not finite at atom 0"),
        ("fails", "fails: KeyError"),
    ],
)
def test_a_form_that_does_not_do_is_one_error(folder, name, words):
    with pytest.raises(InputError) as error:
        require_form(load_form(f"forms.py:{name}", folder), POSITIONS, PARAMETERS, name=f"forms.py:{name}")
    assert words in str(error.value)
    assert error.value.remedy
