"""The commands of the command line, as functions that can be called from Python."""
