"""What do the logs add up to? Sums per hour and account, kept beside the logs and always made anew from them.

The door of duckdb. Everything here is derived: ``derived/`` below the home may be deleted at any time.
"""
