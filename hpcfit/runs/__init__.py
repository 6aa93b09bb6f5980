"""The run directory: where its files are, how they are read, and what they say while a run goes on."""
