"""Searches in other processes: one process of Python computes in one thread at a time, however many cores
there are.

The server (`crew.py`) sends a search (`call.py`) to another process (`process.py`) where that one has less to
do than the server itself. Every search can be answered by the server too, which is what happens whenever
another process does not answer it, for whatever reason: what the user is told, and what is logged, comes from
the server alone.
"""
