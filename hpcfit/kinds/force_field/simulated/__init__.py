"""Frames that are simulated: parameters of an energy function, fitted to averages of what it makes."""
