"""Structures of low energy, found in coordinates that are made of slow modes or of networks; see README.md."""
