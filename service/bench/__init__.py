"""The benchmark behind `reelfind bench`: ratios of two measurements in the same run, on the same input."""
