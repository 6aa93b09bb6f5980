"""The formats of measured maps, one module a format; each reads a file into a RawMap."""
