"""What the head decides and computes: manifests to jobs to places, and logs to kWh, CO2e and CEGI."""
