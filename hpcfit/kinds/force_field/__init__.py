"""Kind "force-field": corrections of a force field that make its ensembles agree with experiments."""
