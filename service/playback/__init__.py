"""Plays and cuts videos: streams of what browsers cannot play, and clips, made while somebody waits.

A stranger's file is opened in a process of its own alone (`worker`), which is confined to that file as those
of an indexing run are. The service passes on or stores what it writes, and does not look into it.
"""
