"""Job scripts for the sites that hpcfit knows."""
