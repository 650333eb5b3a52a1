"""Tests of the project as a whole: its documents, containers and import contracts."""
