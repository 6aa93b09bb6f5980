"""The engine of fits: contract of problems, gradient, optimizers, loop, hooks, checkpoints, stages."""
