"""The schemas of KubeRay's `RayJob` and `RayCluster`, without their descriptions.

They are those of KubeRay 1.7.0, under the Apache licence 2.0. To write `tests/golden/kuberay.json.xz` anew:

    git clone --branch v1.7.0 https://github.com/ray-project/kuberay
    python -m tests.support.kuberay kuberay/ray-operator/config/crd/bases
"""

import json
import lzma
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import ROOT

GOLDEN = ROOT / "tests/golden/kuberay.json.xz"


def strict_schema(kind: str) -> Any:
    """The schema of a kind; unlike Kubernetes, which drops them, it allows no unknown fields."""
    return _strict(json.loads(lzma.decompress(GOLDEN.read_bytes()))[kind])


def _strict(node: Any) -> Any:
    if isinstance(node, list):
        return [_strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    found = {key: _strict(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict) and node.get("type") == "object":
        found.setdefault("additionalProperties", False)
    if node.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
    return found


def main(folder: Path) -> None:
    schemas = {}
    for name in ("rayjobs", "rayclusters"):
        definition = yaml.safe_load((folder / f"ray.io_{name}.yaml").read_text(encoding="utf-8"))["spec"]
        (version,) = (each for each in definition["versions"] if each["name"] == "v1")
        schemas[definition["names"]["kind"]] = without_descriptions(version["schema"]["openAPIV3Schema"])
    GOLDEN.write_bytes(lzma.compress(json.dumps(schemas, sort_keys=True).encode()))


def without_descriptions(node: Any) -> Any:
    if isinstance(node, list):
        return [without_descriptions(each) for each in node]
    if not isinstance(node, dict):
        return node
    # A property of this name has a schema, not a text.
    return {
        key: without_descriptions(value)
        for key, value in node.items()
        if key != "description" or not isinstance(value, str)
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
