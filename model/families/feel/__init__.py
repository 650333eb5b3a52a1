"""FEEL (AAAI 2023): pre-training for semantic alignments of video and language, and finding moments."""
