"""Many devices and an aggregator in one process on a virtual clock, and the data that examples use."""
