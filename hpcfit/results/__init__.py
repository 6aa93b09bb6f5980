"""What comes out: the run directory and its report."""
