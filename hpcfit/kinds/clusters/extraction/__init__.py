"""Clusters in frames: who takes part, pairs within their cut-offs, connected components, unwrapped positions."""
