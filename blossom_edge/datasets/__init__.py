"""Recorded data sets with labels and people, from files in their public layouts. Never trains, never divides."""
