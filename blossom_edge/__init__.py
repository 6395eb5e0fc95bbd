"""What runs on a device, and what device and gateway share."""

__version__ = "0.1.0"
