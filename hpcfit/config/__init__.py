"""The config of a run: ``load_config`` gives a ``Config`` of frozen, typed tables."""

from hpcfit.config.fit import CheckpointConfig, GridConfig, OptimizerConfig, RunConfig
from hpcfit.config.frames import ExperimentConfig, FramesConfig, PrepareConfig, SourceConfig
from hpcfit.config.load import Config, load_config
from hpcfit.config.table import BLOCK_FRAMES, Table
from hpcfit.config.workflow import ClusterConfig, MonitorConfig, SimulateConfig, SystemConfig
from hpcfit.kinds.force_map.config import (
    BeadsConfig,
    ConstraintsConfig,
    FeaturesConfig,
    ForceMapConfig,
    ForceMatchingConfig,
    MapConfig,
    NeuralConfig,
    SimulationConfig,
    ridges,
)
from hpcfit.kinds.frame_weights.config import FrameWeightsConfig

__all__ = [
    "BLOCK_FRAMES",
    "BeadsConfig",
    "CheckpointConfig",
    "ClusterConfig",
    "Config",
    "ConstraintsConfig",
    "ExperimentConfig",
    "FeaturesConfig",
    "ForceMapConfig",
    "ForceMatchingConfig",
    "FrameWeightsConfig",
    "FramesConfig",
    "GridConfig",
    "MapConfig",
    "MonitorConfig",
    "NeuralConfig",
    "OptimizerConfig",
    "PrepareConfig",
    "RunConfig",
    "SimulateConfig",
    "SimulationConfig",
    "SourceConfig",
    "SystemConfig",
    "Table",
    "load_config",
    "ridges",
]
