"""Whether a board can do what its profile says: each check proves by doing, and says how to mend what is red."""
