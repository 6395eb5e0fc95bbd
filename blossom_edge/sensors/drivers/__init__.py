"""One way to read one kind of sensor, one file each. Third-party modules are imported when a driver is opened."""
