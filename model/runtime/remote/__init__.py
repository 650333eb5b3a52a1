"""Files in object stores and on web servers: their addresses, and reading them by byte ranges.

`RemotePath` stands where a `Path` does. A confined process has no network: it reads through a channel, whose
other end its parent serves.
"""
