"""What programs may import of Reelfind: `reelfind.client`."""
