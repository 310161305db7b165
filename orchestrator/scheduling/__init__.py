"""Which job next, and where? Pure functions over snapshots."""
