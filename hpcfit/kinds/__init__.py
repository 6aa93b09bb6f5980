"""The kinds of problems, a folder each; what commands need of a kind is in ``base``, the list of them in ``table``."""
