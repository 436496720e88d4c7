"""The fault suite: `make faults` runs the reliability checks R1 to R17 over the real process and prints a table."""
