"""What is done in each phase of a job, one module each; ``workers.pipeline`` puts them in order.

They import torch: import them inside a lease.
"""
