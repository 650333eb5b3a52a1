"""Confines the process that reads one video file: rights, resources, files, system calls, network.

A file may hold code for a fault of a decoder. What that code can reach is decided here.
"""
