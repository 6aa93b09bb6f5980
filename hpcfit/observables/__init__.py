"""Numbers that an experiment sees of an ensemble, as functions of its frames that can be differentiated."""
