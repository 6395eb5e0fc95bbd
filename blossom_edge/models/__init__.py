"""The blocks as torch modules: encoders, fusions, heads, and the model that joins them. Never trains, never sends."""
