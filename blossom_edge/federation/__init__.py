"""What is learned: the federation file, tensors of every block type, initial values. Never torch, never a network."""
