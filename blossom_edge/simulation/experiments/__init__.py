"""Comparisons of modes on recorded data: many runs, resumable, in parallel processes. Never touches a network."""
