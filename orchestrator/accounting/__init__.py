"""What did this job cost? The join of metric logs, energy logs and Prometheus."""
