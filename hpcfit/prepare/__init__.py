"""`hpcfit prepare`: from the files of other programs to a store of frames, on ranks or as tasks of a cluster."""
