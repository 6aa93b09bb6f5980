"""How it is fitted: gradient, optimizers, the loop and its hooks."""
