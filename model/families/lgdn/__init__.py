"""LGDN (Lu et al., NeurIPS 2022): network, losses, salient frames, published weights."""
