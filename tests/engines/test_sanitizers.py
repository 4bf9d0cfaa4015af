"""The kernel tests of every instruction set under the address and undefined-behaviour sanitizers.

The extension is built once more, as an installation builds it but for HEADGATE_SANITIZE, and takes
the installed one's place in a process of its own, which ends with a report at the first error.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from headgate import native

ROOT = Path(__file__).parents[2]
FILES = (
    "engines/test_cpu.py",
    "engines/test_cpu_calls.py",
    "engines/test_vector_functions.py",
    "nn/test_repeated.py",
    "nn/test_stream.py",
)
SETS = [entry[0] for entry in native.extension.instruction_sets()] if native.extension else []

INSTEAD = """
import importlib.util, sys

spec = importlib.util.spec_from_file_location("headgate._native", sys.argv[1])
sanitized = importlib.util.module_from_spec(spec)
sys.modules["headgate._native"] = sanitized
spec.loader.exec_module(sanitized)

from headgate import native
assert native.extension is sanitized, native.reason
"""

PYTEST = """
import pytest
sys.exit(pytest.main(sys.argv[2:]))
"""

APPLY = """
import torch
x, out = torch.zeros(64), torch.zeros(64)
offset, count = int(sys.argv[2]), int(sys.argv[3])
sanitized.apply("baseline", 0, False, x.data_ptr() + offset, out.data_ptr(), count)
"""


def libraries() -> str:
    """What a process that loads the build must load first, or "" where it is not there.

    libstdc++ too: the sanitizer looks for its functions before Python has loaded it.
    """
    if shutil.which("g++") is None:
        return ""
    found = [
        subprocess.run(
            ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")
    ]
    return ":".join(found) if all(map(os.path.isabs, found)) else ""


PRELOADED = libraries()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not native.available, reason=f"compiled engine {native.reason}"),
    pytest.mark.skipif(not PRELOADED, reason="no g++ with its sanitizers' libraries found"),
]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension with sanitizers, built once for all processes that run tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "sanitized"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = list(folder.glob("headgate/_native.*"))
        return found[0] if found else build_in(folder)


def build_in(folder: Path) -> Path:
    constraints = str(ROOT / "constraints.txt")
    done = subprocess.run(
        [
            sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--wheel-dir", folder,
            "--config-settings=cmake.define.HEADGATE_SANITIZE=ON",
            "--config-settings=cmake.build-type=RelWithDebInfo", ROOT,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={
            **os.environ, "CXX": "g++",
            "PIP_CONSTRAINT": constraints, "PIP_BUILD_CONSTRAINT": constraints,
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    with zipfile.ZipFile(next(folder.glob("headgate-*.whl"))) as wheel:
        # Where a compilation fails, the wheel is built without the extension.
        inside = [n for n in wheel.namelist() if n.startswith("headgate/_native.") and ".so" in n]
        assert inside, done.stdout
        return Path(wheel.extract(inside[0], folder))


def sanitized(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs code after INSTEAD. Leaks are not looked for: CPython frees little at its end."""
    return subprocess.run(
        [sys.executable, "-c", INSTEAD + code, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        env={
            **os.environ, "LD_PRELOAD": PRELOADED,
            "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1", **environment,
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("offset", "count", "report"),
    [(0, 64, ""), (0, 68, "heap-buffer-overflow"), (2, 32, "misaligned address")],
)
def test_an_error_is_reported(build: Path, offset: int, count: int, report: str):
    done = sanitized(APPLY, str(build), str(offset), str(count))
    assert (done.returncode != 0) == bool(report), done.stdout
    assert report in done.stdout


@pytest.mark.parametrize("isa", SETS)
def test_kernels(build: Path, isa: str):
    """All but tests in processes of their own, which load the installed extension."""
    done = sanitized(
        PYTEST, str(build), "-q", "-x", "-p", "no:cacheprovider", "-p", "no:faulthandler",
        "--capture=sys",  # pytest would keep the report to itself
        "-k", "not forked and not unknown", *(str(ROOT / "tests" / f) for f in FILES),
        HEADGATE_ISA=isa, CI="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
