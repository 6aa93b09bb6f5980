"""`hpcfit init` and `explain`: configs, READMEs and small problems of each kind, and what is said where there are none.

The whole demo of frame weights takes minutes and is run by `tools/demo` alone; here its parts are held together.
"""

import json
import subprocess
import sys

import pytest

from hpcfit.commands import explain
from hpcfit.commands.init import UNFINISHED
from hpcfit.kinds import table
from hpcfit.kinds.table import load_config
from hpcfit.testsystems import argon, demos
from tests.command import ROOT, here
from tests.conftest import assert_one_clear_error

KINDS = {"frame-weights", "force-map", "force-field", "structure", "clusters"}
CONFIGS = KINDS | {"force-field/tabulated", "force-field/geometries", "frame-weights/averages"}
SIMULATED = {"frame-weights", "force-map"}  # whose demos simulate by `hpcfit simulate`
HEAVY = ("jax", "numpy", "matplotlib", "openmm", "h5py")


def test_explain_alone_lists_the_kinds_with_a_line_each():
    done = here("explain")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines} == KINDS
    assert all(len(line.split()) > 5 for line in lines)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_explain_prints_the_readme_as_it_is_where_nobody_watches(kind):
    done = here("explain", kind)
    assert done.returncode == 0, done.stderr
    assert done.stdout == explain.readme_of(kind).read_text()
    for heading in ("## Input", "## Files of a run", "## Measured", "## Known limits"):
        assert heading in done.stdout


def test_explain_sets_markdown_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    explain.run_explain("force-map")
    shown = capsys.readouterr().out
    assert "Known limits" in shown
    assert "## Known limits" not in shown


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_init_prints_a_config_that_is_valid(kind, tmp_path):
    done = here("init", kind)
    assert done.returncode == 0, done.stderr
    (tmp_path / "config.toml").write_text(done.stdout)
    problem = load_config(tmp_path / "config.toml").problem
    assert problem.kind == kind.partition("/")[0]
    variant = getattr(problem, "estimator", "") or getattr(problem, "data", "")
    assert kind in (problem.kind, f"{problem.kind}/{variant}")


def test_a_variant_without_a_config_of_its_own_is_one_error():
    done = here("init", "force-field/fluctuation")
    known = "force-field, force-field/tabulated, force-field/geometries"
    assert_one_clear_error(done, ["no config of its own for 'fluctuation'", known])


@pytest.mark.parametrize("command", ["init", "explain"])
def test_an_unknown_kind_is_one_error_that_names_the_nearest(command):
    done = here(command, "force_maps")
    assert_one_clear_error(done, ["no kind of problem 'force_maps'", "did you mean 'force-map'?"])


@pytest.mark.parametrize("words", [("explain",), ("explain", "force-map"), ("init", "force-map"), ("init", "--help")])
def test_neither_loads_anything_heavy(words):
    code = (
        f"import sys; sys.argv = ['hpcfit', *{words!r}]\nfrom hpcfit.cli import main\n"
        "try: main()\nexcept SystemExit: pass\nprint('\\n', *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not set(HEAVY) & set(done.stderr.split())


def test_the_config_of_the_readme_is_valid(tmp_path):
    text = (ROOT / "README.md").read_text().partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "config.toml").write_text(text)
    load_config(tmp_path / "config.toml").require_fit(command="optimize")


# ---- demos ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def brief_dimer(monkeypatch, tmp_path):
    """The demo of force maps with few frames; gives the folder that it is to be made in."""
    pytest.importorskip("openmm")
    text = demos.dimer().config.read_text()
    for key, value in {"frames": 200, "piece": 100, "interval": 0.1, "equilibration": 0.1}.items():
        before, _, after = text.partition(f"\n{key} = ")
        text = f"{before}\n{key} = {value}  #{after}"
    config = tmp_path / "brief.toml"
    config.write_text(text)
    whole = demos.dimer()
    monkeypatch.setitem(demos.DEMOS, "force-map", lambda: whole._replace(config=config))
    return tmp_path / "made" / "demo"


def test_a_demo_runs_where_it_was_made_and_goes_on_when_interrupted(brief_dimer, monkeypatch):
    import hpcfit.prepare.command
    from hpcfit.workflow.stopping import Stopped

    def stopped(*_):
        raise Stopped("stopped by SIGTERM")

    with monkeypatch.context() as now:
        now.setattr(hpcfit.prepare.command, "run_prepare", stopped)
        assert here("init", "force-map", "--demo", brief_dimer).returncode == 75
    assert (brief_dimer / UNFINISHED).exists()
    made = here("init", "force-map", "--demo", brief_dimer)
    assert made.returncode == 0, made.stderr
    assert "2 complete" in made.stderr  # replicas: nothing was simulated again
    assert {path.name for path in brief_dimer.iterdir()} == {
        "config.toml", "dimer.pdb", "rigid.xml", "store", "trajectories",
    }  # fmt: skip
    fitted = here("optimize", brief_dimer / "config.toml", "--set", "run.report=false")
    assert fitted.returncode == 0, fitted.stderr
    metrics = json.loads((brief_dimer / "run" / "metrics.json").read_text())
    assert metrics["frames"] == 400
    again = here("init", "force-map", "--demo", brief_dimer)
    assert_one_clear_error(again, [f"the folder {brief_dimer} is not empty: it holds config.toml"])


def test_a_folder_that_holds_anything_else_is_left_alone(tmp_path):
    pytest.importorskip("openmm")
    (tmp_path / "thesis.tex").write_text("")
    done = here("init", "force-map", "--demo", tmp_path)
    assert_one_clear_error(done, [f"the folder {tmp_path} is not empty: it holds thesis.tex"])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert_one_clear_error(here("init", "force-map", "--demo", tmp_path / "thesis.tex"), ["thesis.tex is a file"])


@pytest.mark.parametrize("kind", sorted(SIMULATED))
def test_without_openmm_it_is_said_before_anything_is_made(kind, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openmm", None)
    done = here("init", kind, "--demo", tmp_path / "demo")
    assert_one_clear_error(done, ["needs OpenMM", "pip install 'hpcfit[simulate]'"])
    assert not (tmp_path / "demo").exists()


def test_every_kind_has_a_demo_whose_config_names_what_it_makes(tmp_path, monkeypatch):
    monkeypatch.setattr(argon, "WALKS", 2)
    monkeypatch.setattr(argon, "STEPS", 4 * argon.STRIDE)
    assert demos.DEMOS.keys() == CONFIGS
    assert table.KINDS.keys() == KINDS
    pytest.importorskip("openmm")
    for kind, demo in demos.DEMOS.items():
        made, config = demo(), tmp_path / kind / "config.toml"
        config.parent.mkdir()
        config.write_text(made.config.read_text())
        made.write_systems(config.parent)
        directories = [load_config(config, sets).simulate.directory for sets in made.simulations]
        assert len(set(directories)) == len(directories)
        assert load_config(config).problem.kind == kind.partition("/")[0]
        assert bool(directories) == (kind in SIMULATED)
        if kind in SIMULATED:
            assert all(one.topology.exists() and one.system.exists() for one in load_config(config).simulate.system)
        else:
            made.observe(config.parent)
            assert all(path.exists() for path in load_config(config).problem.files.values())
