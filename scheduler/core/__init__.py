"""What a scheduler decides, as pure functions: no I/O, no clock, no chance."""
