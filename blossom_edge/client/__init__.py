"""The device's part of a federation: session (no I/O), store (disk), agent (the loop)."""
