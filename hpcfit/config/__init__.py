"""The config of a run: ``load_config`` gives a ``Config`` of frozen, typed tables."""

from hpcfit.config.fit import CheckpointConfig, GridConfig, OptimizerConfig, RunConfig
from hpcfit.config.frames import ExperimentConfig, FramesConfig, PrepareConfig, SourceConfig
from hpcfit.config.load import Config, load_config
from hpcfit.config.problem import FrameWeightsConfig
from hpcfit.config.table import BLOCK_FRAMES, Table
from hpcfit.config.workflow import ClusterConfig, MonitorConfig, SimulateConfig, SystemConfig

__all__ = [
    "BLOCK_FRAMES",
    "CheckpointConfig",
    "ClusterConfig",
    "Config",
    "ExperimentConfig",
    "FrameWeightsConfig",
    "FramesConfig",
    "GridConfig",
    "MonitorConfig",
    "OptimizerConfig",
    "PrepareConfig",
    "RunConfig",
    "SimulateConfig",
    "SourceConfig",
    "SystemConfig",
    "Table",
    "load_config",
]
