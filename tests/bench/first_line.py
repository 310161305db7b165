"""An empty job: ``python -m tests.bench.first_line`` prints one line and has succeeded, whatever it is given.

A controller runs it in place of ``workers.attempt`` when it is told to, and the peer's actor as its process.
"""

print("first line", flush=True)
