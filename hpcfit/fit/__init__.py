"""What a problem is and how it is fitted: contract, gradient, optimizers, loop, hooks, checkpoints, stages."""
