"""Benchmarks of the meter: ``accuracy.py`` against a known truth, ``cost.py`` in processor time and memory.

The truth is the simulated driver of ``tests/driver``. Each meter is a process of its own, ordered about by a pipe:
``peers.py`` holds the peers and the bare loops, and runs in a virtual environment of their own (``environment.py``);
``job.py`` stands in for a job that leases from our agent. ``figures.py`` is what is computed of the answers.
"""
