"""The families of models, each behind the protocol in `base.py`."""
