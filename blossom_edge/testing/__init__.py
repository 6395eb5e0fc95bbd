"""What users need to test their own boards without them: fake sensors, and faults as a script."""
