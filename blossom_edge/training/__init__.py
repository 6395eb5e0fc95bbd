"""Local training with torch: the one implementation of `core.training.Trainer`. Never sees the network."""
