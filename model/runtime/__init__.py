"""Code that serving and training share, without PyTorch: decoding, preprocessing, the bundle, metrics."""
