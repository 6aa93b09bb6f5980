"""Clusters of a trajectory: how many there are, how long they live, which larger ones to expect, what they scatter."""
