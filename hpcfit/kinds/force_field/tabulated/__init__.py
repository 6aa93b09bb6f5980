"""Frames given as tables: corrections of a force field, curves of observables and weights of frames together."""
