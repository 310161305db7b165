"""Which nodes are there, and how is an attempt started on one? The only import of Ray."""
