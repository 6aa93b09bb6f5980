"""The kinds of problems, a folder each; what commands need of a kind is in ``base``, the list of them in ``table``."""

# As yet ``config`` imports the tables of the kinds: whichever is imported first, it must come before them.
import hpcfit.config  # noqa: F401
