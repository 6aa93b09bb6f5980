"""Kind "frame-weights" without a map: weights of frames from tables of numbers that experiments average."""
