"""What one GPU node can do: meter its devices, run an attempt, keep its logs. Works without Ray."""
