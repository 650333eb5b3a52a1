"""Tests of `service.playback`."""
