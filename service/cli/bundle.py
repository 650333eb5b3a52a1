"""`reelfind bundle info|verify`: shows and checks a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from model.runtime.bundle import Bundle, BundleManifest, Provider, default_bundle_path
from model.runtime.bundle.manifest import MANIFEST_NAME, SourceRecord
from model.runtime.errors import BundleError, InputError
from model.runtime.preprocessing import ResizeRule
from service.cli.exits import CheckedCommand
from service.cli.options import JsonOption
from service.cli.printing import print_json, print_json_text, say
from service.settings import variable_of

bundle_app = typer.Typer(
    name="bundle", help="Show or check a bundle (an exported model).", no_args_is_help=True
)

#: How a frame becomes a square, for people.
_RESIZING: Mapping[ResizeRule, str] = {
    "squash": "squashed to a square",
    "center_crop": "the square in the middle",
    "scale_crop": "scaled, then the square in the middle",
}

#: Lines of one kind of measured figures.
_MOST_LINES = 8

FolderArgument = Annotated[
    Path | None,
    typer.Argument(
        envvar=variable_of("bundle"),
        help="Folder of the bundle. Default: the one that ships with Reelfind.",
        show_default=False,
    ),
]


@bundle_app.command("info", cls=CheckedCommand)
def bundle_info_command(folder: FolderArgument = None, as_json: JsonOption = False) -> None:
    """Show a bundle's contents, licence, origin and measured quality."""
    bundle = Bundle.open(_existing_folder(folder))
    if as_json:
        print_json(_as_object(bundle))
        return
    for label, value in _lines(bundle.manifest):
        say(f"{label:<12} {value}")
    say(f"{'checksum':<12} {bundle.checksum}")
    say(f"{'folder':<12} {bundle.folder}")


@bundle_app.command("verify", cls=CheckedCommand)
def bundle_verify_command(
    folder: FolderArgument = None,
    provider: Annotated[Provider, typer.Option(help="Where to run the graphs.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Check the SHA-256 of every file, and run every graph once. Exit code 3: the bundle is damaged."""
    path = _existing_folder(folder)
    try:
        bundle = Bundle.open(path, provider=provider)
        bundle.check()
    except BundleError as error:
        if as_json:
            failure = {"ok": False, "folder": str(path), "error": str(error)}
            print_json_text(json.dumps(failure, ensure_ascii=False))
        raise
    files = bundle.manifest.files_on_disk
    names = sorted(files)
    listed = {*names, MANIFEST_NAME}
    unlisted = sorted(file.name for file in path.iterdir() if file.name not in listed)
    if as_json:
        result = {
            "ok": True,
            "folder": str(bundle.folder),
            "checksum": bundle.checksum,
            "provider": provider,
            "files": names,
            "unlisted": unlisted,
        }
        print_json_text(json.dumps(result, ensure_ascii=False))
        return
    for name in names:
        say(f"ok  {name}  {_size(files[name].bytes)}")
    for name in unlisted:
        say(f"--  {name}  is not part of the bundle and is ignored")
    say(f"{bundle.manifest.name}: all {len(names)} files are intact, and every graph runs on {provider}")


def _existing_folder(folder: Path | None) -> Path:
    path = default_bundle_path() if folder is None else folder
    if not path.is_dir():
        raise InputError(f"{path} is not a folder: give the folder of a bundle")
    return path


def _as_object(bundle: Bundle) -> dict[str, object]:
    return {
        **bundle.manifest.model_dump(mode="json"),
        "capabilities": sorted(bundle.capabilities),
        "checksum": bundle.checksum,
        "folder": str(bundle.folder),
    }


def _lines(manifest: BundleManifest) -> list[tuple[str, object]]:
    m, source = manifest, manifest.provenance
    lines: list[tuple[str, object]] = [
        ("name", m.name),
        *([("description", m.description)] if m.description else []),
        ("licence", m.licence),
        *(("recipe", line) for line in _recipe_lines(source.recipe)),
        ("commit", source.commit),
    ]
    lines += [("data", _source(item)) for item in source.data]
    lines += [("weights", _source(item)) for item in source.weights]
    lines += [("measured", line) for line in _measured_lines(source.metrics)]
    lines += [
        ("image", f"{m.image.size} × {m.image.size} pixels, {_RESIZING[m.image.resize]}"),
        ("text", f"at most {m.text.context_length} tokens{_languages(m.text.languages)}"),
        ("embedding", f"{m.embedding_dim} dimensions; {_salience(m)}"),
        *([("may be cut", f"to {_listed(m.embedding_dims)} dimensions")] if m.embedding_dims else []),
        ("segment", f"{m.frames_per_segment} frames of at most {m.segment_seconds:g} seconds{_at_once(m)}"),
        ("capabilities", ", ".join(sorted(m.capabilities)) or "none besides retrieval"),
    ]
    if m.tokens is not None:
        lines += [("tokens", f"{m.tokens.tokens_per_frame} × {m.tokens.hidden_dim} a frame")]
    if m.tokens is not None and "match" in m.capabilities:
        stored, count = m.tokens.stored_tokens_per_frame, m.num_salient_frames
        lines += [
            (
                "re-ranking",
                f"{m.num_candidates} segments by {count} frames of {stored} tokens; λ {m.ensemble_lambda:g}",
            )
        ]
    if m.salience_match is not None:
        match = f"match {m.salience_match.scale:g} · relevance {_signed(m.salience_match.bias)}"
        count, limits = m.num_salient_frames, m.salience_match.coherence
        if limits is not None:
            match += f", by the similarity where frames are alike (coherence {limits[0]:g} to {limits[1]:g})"
        lines += [
            ("re-ranking", f"{m.num_candidates} segments by {count} frames, {match}; λ {m.ensemble_lambda:g}")
        ]
    if m.hubness is not None:
        lines += [("hubness", f"weight {m.hubness.weight:g}, {m.hubness.neighbours} nearest reference texts")]
    if m.calibration is not None:
        fitted = m.calibration.final or m.calibration.first_stage
        levels = f"medium from {fitted.medium:.0%} on, high from {fitted.high:.0%} on"
        lines += [("probability", levels)]
    lines += [("file", f"{name}, {_size(record.bytes)}") for name, record in m.files_on_disk.items()]
    return lines


def _recipe_lines(recipe: str) -> list[str]:
    """A recipe as lines: its settings if it is a JSON object, or else as it is."""
    try:
        settings = json.loads(recipe)
    except ValueError:
        return [recipe]
    return readable_lines(settings) if isinstance(settings, dict) else [recipe]


def _measured_lines(metrics: Mapping[str, Any]) -> list[str]:
    """The measured figures, a few lines of each kind."""
    lines = []
    for key, value in metrics.items():
        kind = readable_lines({key: value})
        lines += kind[:_MOST_LINES]
        if len(kind) > _MOST_LINES:
            lines.append(f"{key}: {len(kind) - _MOST_LINES} more lines, see --json")
    return lines


def readable_lines(values: Mapping[str, Any], path: str = "") -> list[str]:
    """A JSON object as lines for people: one for its plain values, and those of each object inside it."""
    plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
    shown = ", ".join(f"{key} {_plain(value)}" for key, value in plain.items() if value not in ("", None, []))
    lines = [f"{path}: {shown}" if path else shown] if shown else []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += readable_lines(value, f"{path}, {key}" if path else key)
    return lines


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(map(_plain, value)) if isinstance(value, list) else str(value)


def _source(record: SourceRecord) -> str:
    revision = f", revision {record.revision}" if record.revision else ""
    return f"{record.name} (licence: {record.licence}), {record.source}{revision}"


def _languages(codes: Sequence[str] | None) -> str:
    return f"; languages: {' '.join(codes)} (ISO 639; mul: many)" if codes else ""


def _listed(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes))


def _salience(manifest: BundleManifest) -> str:
    if not manifest.has_salience:
        return "no salience of single frames: moments are whole segments"
    return f"salience {manifest.salience_dim} ({manifest.salience_strategy})"


def _at_once(manifest: BundleManifest) -> str:
    return ", read at once" if manifest.has_video_encoder else ""


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'} {abs(value):g}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count} bytes"
