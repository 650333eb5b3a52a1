"""Features of videos: one vector for every second or two, from feature files of several formats.

`open_features` opens them, and `make_features` makes them with the frame encoder of a bundle.
"""

from model.data.features.base import FeatureStore
from model.data.features.opening import open_features

__all__ = ["FeatureStore", "open_features"]
