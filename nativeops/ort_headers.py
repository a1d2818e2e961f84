"""ONNX Runtime's C headers, which its wheel does not carry: found, or fetched from Debian with apt.

Looked for in ``DETC_ORT_HEADERS``, the system's include folders and the cache. Debian's
``libonnxruntime-dev`` (trixie) has them; the C API only grows, so a library compiled against that release
loads in every later one. On an older Debian the package comes through a copy of the system's own apt sources
with the suite's name changed. Nothing is installed: the package is unpacked into the cache.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from detc.nativeops.build import NativeBuildError, cache_folder

HEADER = "onnxruntime_c_api.h"
PACKAGE = "libonnxruntime-dev"
SUITE = "trixie"
HINT = (
    f"Install Debian's {PACKAGE} or unpack onnxruntime's release archive, and set DETC_ORT_HEADERS to the "
    f"folder that holds {HEADER}. Models run without it: through the functions that the ONNX file carries."
)


def find() -> Path | None:
    """The folder that holds the headers, or None."""
    given = os.environ.get("DETC_ORT_HEADERS")
    roots = [Path(given)] if given else []
    roots += [Path("/usr/include"), Path("/usr/local/include"), _unpacked() / "usr/include"]
    for root in roots:
        for folder in (root, root / "onnxruntime", root / "onnxruntime/core/session", root / "include"):
            if (folder / HEADER).exists():
                return folder
    return None


def find_or_fetch() -> Path:
    """The folder that holds the headers, fetched with apt if need be.

    Raises:
        NativeBuildError: there is no apt, or it does not have the package.
    """
    found = find()
    if found is not None:
        return found
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise NativeBuildError("ONNX Runtime's headers were not found and there is no apt-get", hint=HINT)
    folder = _unpacked()
    folder.mkdir(parents=True, exist_ok=True)
    package = _download(folder)
    _run(["dpkg", "-x", str(package), str(folder)])
    found = find()
    if found is None:
        raise NativeBuildError(f"{package.name} does not contain {HEADER}", hint=HINT)
    return found


def _unpacked() -> Path:
    return cache_folder() / "ort-headers"


def _download(folder: Path) -> Path:
    """The package file, from the system's own sources or, if they do not know it, from the suite that
    does."""
    try:
        _run(["apt-get", "download", PACKAGE], cwd=folder)
    except NativeBuildError:
        sources = folder / "apt"
        (sources / "lists/partial").mkdir(parents=True, exist_ok=True)
        (sources / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
        listing = sources / f"{SUITE}.sources"
        listing.write_text(_sources_of_suite())
        options = [
            f"-oDir::Etc::sourcelist={listing}",
            "-oDir::Etc::sourceparts=-",
            f"-oDir::State::Lists={sources / 'lists'}",
            f"-oDir::Cache={sources / 'cache'}",
            "-oAPT::Get::List-Cleanup=0",
        ]
        _run(["apt-get", *options, "update"])
        _run(["apt-get", *options, "download", PACKAGE], cwd=folder)
    packages = sorted(folder.glob(f"{PACKAGE}_*.deb"))
    if not packages:
        raise NativeBuildError(f"apt-get brought no {PACKAGE}", hint=HINT)
    return packages[-1]


def _sources_of_suite() -> str:
    """The main Debian archive among the system's apt sources, for the suite that has the package."""
    folder = Path("/etc/apt/sources.list.d")
    for path in sorted(folder.glob("*.sources")) if folder.exists() else []:
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            if (
                re.search(r"^Suites:.*", stanza, re.M)
                and "debian-security" not in stanza
                and "debian" in stanza.lower()
            ):
                lines = [x for x in stanza.splitlines() if not x.startswith("#")]
                if not any(re.match(r"URIs:\s*\S*/debian/?\s*$", x) for x in lines):
                    continue
                return "\n".join(f"Suites: {SUITE}" if x.startswith("Suites:") else x for x in lines) + "\n"
    for path in [Path("/etc/apt/sources.list"), *(sorted(folder.glob("*.list")) if folder.exists() else [])]:
        for line in path.read_text().splitlines() if path.exists() else []:
            match = re.match(r"deb(?:\s+\[([^\]]*)\])?\s+(\S*/debian/?)\s+\S+", line)
            if match:
                signed = re.search(r"signed-by=(\S+)", match[1] or "")
                key = f"Signed-By: {signed[1]}\n" if signed else ""
                return f"Types: deb\nURIs: {match[2]}\nSuites: {SUITE}\nComponents: main\n{key}"
    raise NativeBuildError("this system's apt sources do not name a Debian archive", hint=HINT)


def _run(command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NativeBuildError(
            f"{' '.join(command[:1])} failed", log=(done.stdout + done.stderr).strip(), hint=HINT
        )
