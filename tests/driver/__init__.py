"""A simulated NVIDIA driver: ``libnvidia-ml.so.1`` (``nvml.c``), and behind it a process that holds the boards.

``build.py`` compiles the library, ``server.py`` is the driver process, ``driver.py`` starts it and is how tests set
loads, traces and faults and ask for the truth. The boards are ``workers.telemetry.board``'s.

Not modelled: vGPU, ECC, NVLink, settable clocks, a driver that hangs.
"""
