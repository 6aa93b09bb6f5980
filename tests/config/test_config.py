"""The config: what is valid round-trips, every mistake is one error that names key, value and nearest valid name."""

import re
from pathlib import Path

import pytest

from hpcfit import config as tables
from hpcfit.config.observables.averages import AveragedConfig
from hpcfit.config.observables.experiments import CurveConfig
from hpcfit.errors import InputError
from hpcfit.kinds.force_map import config as force_map
from hpcfit.kinds.frame_weights.averages.config import AveragesConfig
from hpcfit.kinds.frame_weights.config import AUTO_FOLDS, AUTO_THETA, FrameWeightsConfig
from hpcfit.kinds.table import check_config, load_config

STRUCTURE = """
[run]
directory = "run"
[problem]
kind = "structure"
energy = {form = "lennard-jones", n = 4}
[[problem.method]]
name = "a"
optimizer = "adam"
[[problem.method]]
name = "b"
optimizer = "adam"
"""
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
        ("theta = -1\n", "'problem.theta' = -1: must be at least 0 and at most 1e.15"),
        ("theta = 'big'\n", "'problem.theta.*' = 'big'"),
        ("theta = []\n", "'problem.theta.*' = \\[\\]"),
        ("theta = [0.1, -1]\n", "'problem.theta.*' = -1"),
        ("starts = ['randon']\n", "'problem.starts.0' = 'randon'.*did you mean 'random'"),
        ("starts = []\n", "'problem.starts' = \\[\\]"),
        ("objective = 'gauss'\n", "'problem.objective' = 'gauss'.*did you mean 'gaussian'"),
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


# Every option that something else of the table makes meaningless: its line, the line that does, what is said of both.
WITHOUT_EFFECT = [
    ("random_starts = 3", "starts = ['prior']", "random_starts = 3 has no effect without .*random"),
    ("n_clusters = 4", "clusters = 'labels'", "n_clusters = 4 has no effect without clusters other than labels"),
    ("dropping_percentile = 20", "dropping_rounds = 0", "dropping_percentile = 20.0 has no effect without"),
    ("hold_out_block = 5", "hold_out = 0.1", "hold_out_block = 5 has no effect without hold_out_by"),
    ("hold_out_seed = 5", "theta = 0", "hold_out_seed = 5 has no effect without hold_out or folds"),
    ("hold_out_by = 'blocks'", "theta = 0", "hold_out_by = blocks has no effect without hold_out or folds"),
    ("anisotropic = true", "objective = 'gaussian'", "anisotropic = True has no effect on objective = 'gaussian'"),
    ("anisotropic = true", "objective = 'student-t'", "anisotropic = True has no effect on objective = 'student-t'"),
    ("anisotropic = true", "objective = 'poisson'", "anisotropic = True has no effect on objective = 'poisson'"),
    ("anisotropic = true", "objective = 'cross-entropy'", "anisotropic = True has no effect .* 'cross-entropy'"),
    ("background = 3", "objective = 'pearson'", "background = 3 has no effect on objective = 'pearson'"),
    ("background = 3", "objective = 'cross-entropy'", "background = 3 has no effect on objective = 'cross-entropy'"),
    ("student_nu = 7", "objective = 'pearson'", "student_nu = 7.0 has no effect .* only on student-t"),
    ("student_nu = 7", "objective = 'gaussian'", "student_nu = 7.0 has no effect .* only on student-t"),
    ("student_nu = 7", "objective = 'poisson'", "student_nu = 7.0 has no effect .* only on student-t"),
    ("student_nu = 7", "objective = 'cross-entropy'", "student_nu = 7.0 has no effect .* only on student-t"),
    ("model_error = true", "objective = 'pearson'", "model_error = True has no effect .* gaussian and student-t"),
    ("model_error = true", "objective = 'poisson'", "model_error = True has no effect .* gaussian and student-t"),
    ("model_error = true", "objective = 'cross-entropy'", "model_error = True has no effect .* gaussian and student-t"),
    ("sigmas = true", "objective = 'poisson'", "sigmas has no effect on objective = 'poisson'"),
    ("sigmas = false", "objective = 'poisson'", "sigmas has no effect on objective = 'poisson'"),
    ("theta = 0.1", "weights = 'sigmoid'", "theta = 0.1 prices .* 'sigmoid' do not have"),
    ("theta = [0, 0.1]", "weights = 'free'", "theta = .*0.1.* prices .* 'free' do not have"),
    ("l1 = 0.1", "weights = 'simplex'", "l1 = 0.1 has no effect on weights = 'simplex'"),
    ("l1 = 0.1", "weights = 'binary'", "l1 = 0.1 has no effect on weights = 'binary'"),
    ("dropping_rounds = 2", "weights = 'sigmoid'", "dropping_rounds needs weights = 'simplex'"),
    ("dropping_rounds = 2", "weights = 'free'", "dropping_rounds needs weights = 'simplex'"),
    ("dropping_rounds = 2", "weights = 'binary'", "dropping_rounds needs weights = 'simplex'"),
    ("starts = ['random']", "weights = 'binary'", "starts has no effect on weights = 'binary'"),
    ("theta = 0.1", "weights = 'binary'", "theta has no effect on weights = 'binary'"),
    ("l2 = 0.1", "weights = 'binary'", "l2 has no effect on weights = 'binary'"),
    ("smoothness = 0.1", "weights = 'binary'", "smoothness has no effect on weights = 'binary'"),
    ("prior = 'equal-labels'", "weights = 'binary'", "prior has no effect on weights = 'binary'"),
]


@pytest.mark.parametrize(("option", "other", "message"), WITHOUT_EFFECT)
def test_an_option_without_effect_is_refused(tmp_path, option, other, message):
    with pytest.raises(InputError, match=message):
        load_config(written(tmp_path, f"{MINIMAL}{option}\n{other}\n"))
    if other not in ("objective = 'pearson'", "weights = 'simplex'"):  # which are the defaults
        load_config(written(tmp_path, f"{MINIMAL}{other}\n"))


@pytest.mark.parametrize("option", ["background = 3", "model_error = true", "student_nu = 7.0", "sigmas = false"])
def test_the_same_options_are_taken_where_they_have_one(tmp_path, option):
    config = load_config(written(tmp_path, f"{MINIMAL}{option}\nobjective = 'student-t'\n"))
    key, value = option.split(" = ")
    assert str(getattr(config.problem, key)).lower() == value


@pytest.mark.parametrize(
    ("lines", "thetas", "folds"),
    [
        ("", AUTO_THETA, AUTO_FOLDS),
        ("theta = 'auto'\nfolds = 3", AUTO_THETA, 3),
        ("theta = 0.1", (0.1,), 0),
        ("theta = 0.1\nfolds = 4", (0.1,), 4),
        ("theta = [0.3, 0.1, 0.3, 0]", (0.0, 0.1, 0.3), AUTO_FOLDS),
        ("theta = [0.3]", (0.3,), 0),
        ("theta = 0.1\nfolds = 4\nfold = 3", (0.1,), 0),
        ("weights = 'free'", (0.0,), 0),
    ],
)
def test_which_thetas_are_tried_by_how_many_folds(tmp_path, lines, thetas, folds):
    choice = load_config(written(tmp_path, f"{MINIMAL}{lines}\n")).problem
    assert (choice.thetas, choice.n_folds) == (thetas, folds)


@pytest.mark.parametrize("lines", ["folds = 4\nfold = 1", "theta = [0, 0.1]\nfolds = 4\nfold = 1"])
def test_one_fold_is_for_one_theta(tmp_path, lines):
    with pytest.raises(InputError, match=r"fold = 1 holds out one part for one theta; theta = .* are several"):
        load_config(written(tmp_path, f"{MINIMAL}{lines}\n"))


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


def test_a_table_of_a_list_is_overridden_by_its_number(tmp_path):
    path = written(tmp_path, STRUCTURE)
    config = load_config(path, ["problem.method.1.rate=0.5"])
    assert [one.rate for one in config.problem.method] == [0.02, 0.5]
    for text, said in (
        ("problem.method.2.rate=1", r"\[\[problem.method\]\] has 2 tables, and '2' is the number of none"),
        ("problem.method.last.rate=1", "'last' is the number of none"),
        ("problem.method.rate=1", "'method' is a list of tables"),
    ):
        with pytest.raises(InputError, match=said):
            load_config(path, [text])


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
    config = load_config(path)
    inputs = [config.frames.store] if config.frames else config.problem.files.values()
    assert inputs or config.problem.kind == "structure"  # a loop is made from its numbers
    assert all(found.is_absolute() for found in (config.run.directory, *inputs))


COMMON = {
    "run": tables.RunConfig, "frames": tables.FramesConfig, "prepare": tables.PrepareConfig,
    "prepare.source": tables.SourceConfig, "experiment": tables.ExperimentConfig,
    "optimizer": tables.OptimizerConfig, "grid": tables.GridConfig, "checkpoint": tables.CheckpointConfig,
    "simulate": tables.SimulateConfig, "simulate.system": tables.SystemConfig, "monitor": tables.MonitorConfig,
}  # fmt: skip
FORCE_MAP = {
    "problem": force_map.ForceMapConfig, "problem.beads": force_map.BeadsConfig,
    "problem.constraints": force_map.ConstraintsConfig, "problem.map": force_map.MapConfig,
    "problem.map.features": force_map.FeaturesConfig, "problem.force_matching": force_map.ForceMatchingConfig,
    "problem.force_matching.neural": force_map.NeuralConfig,
    "problem.force_matching.simulation": force_map.SimulationConfig,
}  # fmt: skip
AVERAGES = {"problem": AveragesConfig, "problem.experiment": AveragedConfig, "problem.curve": CurveConfig}
TABLES_WITHIN = {
    "source", "system", "beads", "constraints", "map", "force_matching", "features", "neural", "simulation",
    "experiment", "curve",
}  # fmt: skip


@pytest.mark.parametrize(
    ("example", "kinds"),
    [
        ("frame_weights", COMMON | {"problem": FrameWeightsConfig}), ("force_map", FORCE_MAP),
        ("frame_weights_averages", AVERAGES),
    ],
)  # fmt: skip
def test_the_examples_show_every_key(example, kinds):
    """Each key of each table stands in an example, commented out or not."""
    text = (Path(__file__).parents[2] / f"config/{example}.toml").read_text()
    for name, table in kinds.items():
        sections = re.findall(rf"^#? ?\[+{re.escape(name)}\]+.*?(?=^#? ?\[|\Z)", text, re.MULTILINE | re.DOTALL)
        shown = set(re.findall(r"^(?:# )?(\w+) = ", "".join(sections), re.MULTILINE))
        assert shown | TABLES_WITHIN >= set(table.model_fields), name


FORCE_MAP_MINIMAL = '[frames]\nstore = "s"\n[problem]\nkind = "force-map"\n[problem.beads]\nresidue = "CA"\n'


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("weight = 1", ["unknown key 'problem.beads.weight'", "did you mean 'weights'"]),
        ('each = "name CA"', ["residue", "each", "one of"]),
        ("atoms = [[0], []]", ["problem.beads.atoms"]),
        ('weights = "equal"', ["weights = 'equal' has no effect"]),
        ('[problem.map]\nmethods = ["optimal"]\nsupport = 3', ["support = 3 has no effect"]),
        ('[problem.map]\nmethods = ["basic"]\nridge = 0.1', ["ridge = 0.1 has no effect"]),
        ('[problem.map]\nuse = "tied"', ["use = 'tied' is not among methods"]),
        ('[problem.map]\nmethods = ["file"]', ["method file needs file"]),
        ('[problem.map]\nmethods = ["optimal", "local"]\ngram = "local"', ["gram = 'local'", "optimal"]),
        ('[problem.constraints]\nvirtual_sites = "done"', ["virtual_sites = 'done' has no effect without system"]),
        ('[problem.force_matching.simulation]\nmodel = "neural"', ["needs [problem.force_matching.neural]"]),
        ("[problem.force_matching.neural]\nhold_out = 1.0", ["problem.force_matching.neural.hold_out"]),
        ('[problem.mapp]\nmethods = ["basic"]', ["unknown key 'problem.mapp'", "did you mean 'map'"]),
    ],
)
def test_mistakes_of_a_force_map_are_named(tmp_path, more, expected):
    with pytest.raises(InputError) as caught:
        load_config(written(tmp_path, FORCE_MAP_MINIMAL + more + "\n"))
    for words in expected:
        assert words in str(caught.value)


def test_a_force_map_round_trips(tmp_path):
    more = "[problem.map]\nridge = [0.1, 0.01]\n[problem.force_matching]\nbonds = [[0, 1]]\npair_range = [0.0, 9.0]\n"
    config = load_config(written(tmp_path, FORCE_MAP_MINIMAL + more))
    assert force_map.ridges(config.problem.map.ridge) == (0.01, 0.1)
    assert config.problem.force_matching.bonds == [(0, 1)]
    assert load_config(written(tmp_path, config.to_toml())) == config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[experiment]\nfile = "map.npz"\n', r"\[experiment\] has no effect"),
        ('[optimizer]\nname = "greedy"\n', "'greedy' selects frames"),
    ],
)
def test_tables_of_frame_weights_are_refused_where_they_have_no_effect(tmp_path, text, expected):
    with pytest.raises(InputError, match=expected):
        check_config(load_config(written(tmp_path, FORCE_MAP_MINIMAL + text)), "optimize")
    kept = FORCE_MAP_MINIMAL.replace('store = "s"', 'store = "s"\nresidence = "disk"')
    with pytest.raises(InputError, match="residence = 'disk' has no effect"):
        check_config(load_config(written(tmp_path, kept)), "optimize")


def test_the_kind_of_problem_is_named(tmp_path):
    with pytest.raises(InputError, match=r"'problem.kind' = 'force-maps'.*did you mean 'force-map'"):
        load_config(written(tmp_path, FORCE_MAP_MINIMAL.replace('"force-map"', '"force-maps"')))
    with pytest.raises(InputError, match=r"missing key 'problem.kind'"):
        load_config(written(tmp_path, FORCE_MAP_MINIMAL.replace('kind = "force-map"\n', "")))
