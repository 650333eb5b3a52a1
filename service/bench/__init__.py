"""The benchmark behind `reelfind bench`: ratios of two things measured in the same run, on the same input."""
