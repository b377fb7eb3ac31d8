"""Wire events and bodies of both vendors, to and from ours. Pure functions: no I/O, no state."""
