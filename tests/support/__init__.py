"""What several tests build on: a tiny federation, a trainer without torch, a world that can be broken."""
