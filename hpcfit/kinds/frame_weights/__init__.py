"""Kind "frame-weights": what it reads, which fits it takes, what it concludes."""
