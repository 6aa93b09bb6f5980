"""Fits of kind "force-field" to stored geometries: their reference energies and forces are the targets."""
