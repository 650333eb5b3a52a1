"""The bundle: a folder with `bundle.json`, ONNX graphs and a tokenizer, its writer and its reader."""

from model.runtime.bundle.answers import Answers
from model.runtime.bundle.description import BundleDescription
from model.runtime.bundle.encodings import FrameEncoding, SegmentEncoding, TextEncoding
from model.runtime.bundle.files import default_bundle_path
from model.runtime.bundle.hubness import HubnessCorrection
from model.runtime.bundle.manifest import BundleManifest
from model.runtime.bundle.moments import MomentLogits
from model.runtime.bundle.reader import Bundle
from model.runtime.bundle.sessions import Provider
from model.runtime.bundle.writer import write_bundle

__all__ = [
    "Answers",
    "Bundle",
    "BundleDescription",
    "BundleManifest",
    "FrameEncoding",
    "HubnessCorrection",
    "MomentLogits",
    "Provider",
    "SegmentEncoding",
    "TextEncoding",
    "default_bundle_path",
    "write_bundle",
]
