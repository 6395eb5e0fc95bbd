"""The vocabulary of both sides: names, blocks, rounds, metrics, errors. No I/O, no clock."""
