"""hpcfit's own files of frames: HDF5 shards, catalogs with their seals, pieces of trajectories, and how a
rank streams its share of them.
"""
