"""Reelfind's models: PyTorch code that trains and exports, and the runtime that serves without it.

Importing this package turns off what other libraries send by themselves. ONNX Runtime reads its variable
only while it is imported, so this must happen before; `model.runtime.onnx` alone imports it, and Python runs
this module first.
"""

import os

# ONNX Runtime would send usage data to its vendor and keep an id of the device in the user's cache.
# `disable_telemetry_events()` comes too late: both begin with the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
#: whether the user has said that the hub is not to be asked
HUB_OFFLINE = os.environ.get("HF_HUB_OFFLINE", "0").upper() not in ("", "0", "OFF", "NO", "FALSE")
# Weights with a hub's name are taken from the local copy; HF_HUB_OFFLINE=0 asks to fetch them.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
