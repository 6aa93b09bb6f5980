"""The config: what is valid round-trips, every mistake is one error that names key, value and nearest valid name."""

from pathlib import Path

import pytest

from hpcfit.config import load_config
from hpcfit.errors import InputError

MINIMAL = '[frames]\nstore = "s"\n[experiment]\nfile = "map.npz"\n[problem]\nkind = "frame-weights"\n'


def written(folder, text):
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_config(tmp_path):
    config = load_config(written(tmp_path, MINIMAL))
    assert config.frames.store == tmp_path / "s"
    assert config.run.directory == tmp_path / "run"
    assert config.experiment.file == tmp_path / "map.npz"


def test_resolved_config_reads_back_the_same(tmp_path):
    config = load_config(
        written(tmp_path, MINIMAL + 'theta = 0.5\n[[prepare.source]]\ntrajectory = "a.dcd"\ntopology = "t.pdb"\n')
    )
    assert load_config(written(tmp_path, config.to_toml())) == config


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("thetaa = 1\n", "unknown key 'problem.thetaa' = 1: did you mean 'theta'"),
        ("[optimiser]\n", "unknown key 'optimiser'.*did you mean 'optimizer'"),
        ("theta = -1\n", "'problem.theta' = -1: input should be greater than or equal to 0"),
        ("theta = 'big'\n", "'problem.theta' = 'big': input should be a valid number"),
        ("start = 'randon'\n", "'problem.start' = 'randon'.*did you mean 'random'"),
        ("d_min = 3\nd_max = 2\n", "d_min = 3.0 A must be smaller than d_max = 2.0 A"),
        ("[checkpoint]\nkeep = 0\n", "'checkpoint.keep' = 0"),
        ("[[prepare.source]]\nlabel = 'x'\n", "one of `trajectory`, `mtz`, `lunus` and `store`"),
        (
            "[[prepare.source]]\nmtz = 'x'\nstrid = 2\n",
            "unknown key 'prepare.source.0.strid' = 2: did you mean 'stride'",
        ),
        ("[prepare]\nmantissa_bits = 10\n", "mantissa_bits"),
        ("[prepare]\nshard_frames = 100\n", "multiple of 64"),
        ("[run]\nthreads = 0\n", "'run.threads' = 0"),
        ("anisotropic = 'no'\n", "'problem.anisotropic' = 'no': input should be a valid boolean"),
        ("shells = true\n", "'problem.shells' = True"),
        ("[grid]\nframes = 'x'\n", "'grid.frames' = 'x'"),
        ("[[prepare.source]]\nmtz = 'x'\ntopology = 'y'\n", "`topology` belongs to a trajectory"),
        ("[cluster]\ndashboard = 'localhost:70000'\n", "dashboard' = 'localhost:70000'.*70000 is no port.*65535"),
        ("[monitor]\naddress = 'tcp://node7:65536'\n", "'monitor.address' = 'tcp://node7:65536'.*65536 is no port"),
        ("[[prepare.source]]\nmtz = 'x'\nstop = -3\n", "'prepare.source.0.stop' = -3"),
    ],
)
def test_mistakes_are_named(tmp_path, extra, message):
    with pytest.raises(InputError, match=message) as caught:
        load_config(written(tmp_path, MINIMAL + extra))
    assert str(tmp_path / "config.toml") in str(caught.value)


def test_all_mistakes_at_once(tmp_path):
    with pytest.raises(InputError) as caught:
        load_config(written(tmp_path, MINIMAL + "theta = -1\nlauee = 'P1'\n"))
    assert "theta" in str(caught.value)
    assert "lauee" in str(caught.value)


def test_overrides(tmp_path):
    path = written(tmp_path, MINIMAL)
    config = load_config(
        path,
        [
            "problem.theta=0.01",
            "optimizer.name=adam",
            "optimizer.options.learning_rate=0.1",
            "grid.frames=2",
            "run.directory=other",
        ],
    )
    assert config.problem.theta == 0.01
    assert config.optimizer.options == {"learning_rate": 0.1}
    assert config.grid.frames == 2
    assert config.run.directory == tmp_path / "other"


@pytest.mark.parametrize("text", ["theta=1", "problem.theta", "problem.theta.x=1"])
def test_malformed_overrides(tmp_path, text):
    with pytest.raises(InputError, match="--set"):
        load_config(written(tmp_path, MINIMAL + "theta = 1\n"), [text])


def test_not_toml(tmp_path):
    with pytest.raises(InputError, match=r"not TOML.*line 1"):
        load_config(written(tmp_path, "[frames\n"))


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_config(tmp_path / "nowhere.toml")


def test_missing_table_names_the_command(tmp_path):
    config = load_config(written(tmp_path, '[frames]\nstore = "s"\n'))
    with pytest.raises(InputError, match=r"no \[experiment\] table, which `hpcfit optimize` needs"):
        config.require("experiment", command="optimize")


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "config").glob("*.toml")), ids=lambda path: path.name
)
def test_the_examples_are_valid(path):
    assert load_config(path).frames.store.is_absolute()


def test_the_example_shows_every_key(tmp_path):
    """Each key of each table stands in the example, commented out or not, and each commented default is the default."""
    import re

    from hpcfit import config as tables

    text = (Path(__file__).parents[2] / "config/frame_weights.toml").read_text()
    kinds = {
        "run": tables.RunConfig, "frames": tables.FramesConfig, "prepare": tables.PrepareConfig,
        "prepare.source": tables.SourceConfig, "experiment": tables.ExperimentConfig,
        "problem": tables.FrameWeightsConfig, "optimizer": tables.OptimizerConfig, "grid": tables.GridConfig,
        "checkpoint": tables.CheckpointConfig, "simulate": tables.SimulateConfig,
        "simulate.system": tables.SystemConfig, "monitor": tables.MonitorConfig,
    }  # fmt: skip
    for name, table in kinds.items():
        sections = re.findall(rf"^#? ?\[+{re.escape(name)}\]+.*?(?=^#? ?\[|\Z)", text, re.MULTILINE | re.DOTALL)
        shown = set(re.findall(r"^(?:# )?(\w+) = ", "".join(sections), re.MULTILINE))
        assert shown | {"source", "system"} >= set(table.model_fields), name
