"""The config of a run: ``read_config`` gives a ``Config`` of frozen, typed tables. No kind of problem is known here."""

from hpcfit.config.fit import CheckpointConfig, GridConfig, OptimizerConfig, RunConfig
from hpcfit.config.frames import ExperimentConfig, FramesConfig, PrepareConfig, SourceConfig
from hpcfit.config.load import Config, read_config
from hpcfit.config.table import BLOCK_FRAMES, ProblemTable, Table
from hpcfit.config.workflow import ClusterConfig, MonitorConfig, SimulateConfig, SystemConfig

__all__ = [
    "BLOCK_FRAMES",
    "CheckpointConfig",
    "ClusterConfig",
    "Config",
    "ExperimentConfig",
    "FramesConfig",
    "GridConfig",
    "MonitorConfig",
    "OptimizerConfig",
    "PrepareConfig",
    "ProblemTable",
    "RunConfig",
    "SimulateConfig",
    "SourceConfig",
    "SystemConfig",
    "Table",
    "read_config",
]
