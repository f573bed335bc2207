"""Generate conda.yaml from uv.lock, and MLproject from the command line's parameters.

With ``--check``, only report whether they are up to date; the exit status is 1 if not.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from wastelens.cli import ENTRY_POINTS  # noqa: E402
from wastelens.config.parameters import parameters_of  # noqa: E402

PYTHON_VERSION = "3.11"


def conda_yaml() -> str:
    """Return conda.yaml with all locked run-time dependencies: MLflow caches environments by the hash of this file."""
    command = [
        "uv",
        "export",
        "--frozen",
        "--no-default-groups",
        "--no-emit-project",
        "--no-hashes",
        "--no-annotate",
    ]
    pins = subprocess.run([*command, "--no-header"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    lines = [f'      - "{pin.strip()}"' for pin in pins.splitlines() if pin.strip()]
    head = [
        "# Generated from uv.lock by `make lock`; do not edit.",
        "name: wastelens",
        "channels:",
        "  - conda-forge",
        "dependencies:",
        f"  - python={PYTHON_VERSION}",
        "  - pip",
        "  - pip:",
    ]
    return "\n".join([*head, *lines]) + "\n"


def mlproject() -> str:
    """Return MLproject: every entry point with all parameters of its command; MLflow quotes the values."""
    lines = [
        "# Generated from the types of the settings, src/wastelens/config/, by `make lock`; do not edit.",
        "name: wastelens",
        "conda_env: conda.yaml",
        "",
        "entry_points:",
    ]
    for step, summary in ENTRY_POINTS.items():
        parameters = parameters_of(step)
        lines += [f"  # {summary}", f"  {step}:", "    parameters:"]
        lines += [
            f'      {parameter.name}: {{type: string, default: "{parameter.default}"}}  # {parameter.help}'
            for parameter in parameters
        ]
        options = " ".join(f"--{parameter.name} {{{parameter.name}}}" for parameter in parameters)
        lines += [f'    command: "python src/wastelens {step} {options}"', ""]
    return "\n".join(lines[:-1]) + "\n"


def main() -> int:
    """Write or check both files; return the exit status."""
    stale = 0
    for name, text in {"conda.yaml": conda_yaml(), "MLproject": mlproject()}.items():
        path = ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if "--check" in sys.argv:
            print(f"{name} is out of date. Run `make lock`.")
            stale = 1
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
    return stale


if __name__ == "__main__":
    sys.exit(main())
