"""Where do the watts show? Prometheus and Grafana."""
