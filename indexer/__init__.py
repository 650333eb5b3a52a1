"""Offline jobs: scan, decode, encode, write and publish a library."""
