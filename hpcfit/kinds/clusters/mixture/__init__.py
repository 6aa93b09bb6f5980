"""The intensity of a solution as a mixture of clusters, fitted to a measured curve."""
