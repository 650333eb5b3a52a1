"""Data for training and evaluation: photos, films spliced from them, video data sets."""
