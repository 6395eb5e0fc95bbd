"""What a board says of itself: identity, processors, memory, heat, power, clock. Reads only, keeps nothing."""
