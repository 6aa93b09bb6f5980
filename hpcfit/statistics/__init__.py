"""Errors of results: folds that are held out, and resampled blocks."""
