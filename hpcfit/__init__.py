"""hpcfit: fit molecular ensembles to experiments on a supercomputer."""

__version__ = "0.1.0"
