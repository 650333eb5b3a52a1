"""Adds a calibration to a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.export.copying import copy_bundle
from model.export.provenance import extended
from model.runtime.bundle import Bundle, BundleManifest
from model.runtime.bundle.manifest import Calibration
from model.runtime.bundle.references import ReferenceImages


def add_calibration(
    bundle: Bundle,
    calibration: Calibration,
    output: Path,
    recipe: Mapping[str, Any],
    data: Sequence[str] = (),
    metrics: Mapping[str, Any] | None = None,
    reference_images: ReferenceImages | None = None,
) -> BundleManifest:
    """Write a copy of a bundle with a calibration; one that it has is replaced.

    Args:
        bundle: whose scores the calibration was fitted on.
        calibration: the calibration.
        output: becomes the new bundle; a bundle that is there is replaced.
        recipe: how it was fitted, for the provenance.
        data: what it was fitted on, a line for each data set.
        metrics: the measured figures, for the provenance.
        reference_images: that the calibration compares queries with; None: with none.

    Raises:
        BundleError: the bundle cannot be written.
    """
    return copy_bundle(
        bundle,
        output,
        calibration=calibration,
        reference_images=reference_images,
        provenance=extended(bundle.manifest.provenance, "calibration", recipe, data, metrics),
    )
