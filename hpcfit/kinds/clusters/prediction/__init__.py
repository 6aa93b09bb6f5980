"""Larger clusters predicted from smaller ones: training rows, models, candidates, shares, weights."""
