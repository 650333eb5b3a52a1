"""`reelfind doctor`: shows what this installation is made of, and what is missing."""

import typer
from rich.console import Console

from model.runtime.exits import FAILED
from service.cli.doctor_checks import Finding, examine
from service.cli.options import BundleOption, JsonOption, LibraryOption, ProviderOption
from service.cli.printing import print_json, print_line
from service.settings import load_settings

_MARKS = {"ok": " ", "note": "-", "problem": "!"}


def doctor_command(
    library: LibraryOption = None,
    bundle: BundleOption = None,
    provider: ProviderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show versions, hardware, the sandbox, bundle and library. Exit code 3: something is wrong."""
    settings = load_settings({"library": library, "bundle": bundle, "provider": provider})
    findings = list(examine(settings))
    if as_json:
        print_json(_as_object(findings))
    else:
        _print(findings, Console())
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(FAILED)


def _as_object(findings: list[Finding]) -> dict[str, object]:
    topics: dict[str, dict[str, dict[str, str]]] = {}
    for finding in findings:
        topics.setdefault(finding.topic, {})[finding.name] = {
            "value": finding.value,
            "level": finding.level,
        }
    return {"ok": all(finding.level != "problem" for finding in findings), **topics}


def _print(findings: list[Finding], console: Console) -> None:
    topic = ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            print_line(console, topic)
        print_line(console, f"{_MARKS[finding.level]} {finding.name:<14} {finding.value}")
    problems = sum(finding.level == "problem" for finding in findings)
    notes = sum(finding.level == "note" for finding in findings)
    print_line(console, f"{problems} problems (!), {notes} notes (-)")
