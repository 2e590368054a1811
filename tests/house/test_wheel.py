"""What is installed is exactly what the repository holds, under one top-level name."""

import email
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import dpaudit

ROOT = Path(__file__).parents[2]
ROOMS = ("attacks", "targets", "reports")


def setuptools_major() -> int:
    try:
        return int(version("setuptools").partition(".")[0])
    except PackageNotFoundError:
        return 0


pytestmark = [
    pytest.mark.skipif(
        shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a git checkout"
    ),
    pytest.mark.skipif(
        setuptools_major() < 77, reason="setuptools 77 or newer is not installed, and the test is offline"
    ),
]


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(name) for name in done.stdout.split("\0") if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for path in tracked():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path, follow_symlinks=False)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "-w", str(folder / "out"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (folder / "out").glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        yield archive


def installed(path: Path) -> str | None:
    """Where a tracked file has to be in the wheel; None if it does not belong there."""
    if (ROOT / path).is_symlink() or path.parts[0] not in ("dpaudit", *ROOMS):
        return None
    return path.as_posix() if path.parts[0] == "dpaudit" else f"dpaudit/{path.as_posix()}"


def content(wheel):
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def metadata(wheel, name):
    (path,) = (path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def test_the_wheel_installs_one_top_level_name(wheel):
    assert {name.partition("/")[0] for name in content(wheel)} == {"dpaudit"}


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel):
    expected = {name for path in tracked() if (name := installed(path)) is not None}
    assert expected - content(wheel) == set(), "forgotten in pyproject.toml"
    assert content(wheel) - expected == set(), "in the wheel and not in the repository"


@pytest.mark.parametrize(
    "name",
    [
        "attacks/__init__.py",
        "targets/__init__.py",
        "reports/__init__.py",
        "reports/page.html",
        "default.toml",
        "py.typed",
    ],
)
def test_the_wheel_holds_what_a_run_needs(wheel, name):
    assert f"dpaudit/{name}" in content(wheel)


def test_the_metadata_says_what_the_project_says(wheel):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = email.message_from_string(metadata(wheel, "METADATA"))
    assert found["Name"] == "dpaudit"
    assert found["Version"] == dpaudit.__version__ == project["version"]
    assert found["License-Expression"] == "Apache-2.0"
    assert found["Requires-Python"] == ">=3.11"
    assert found["Description-Content-Type"] == "text/markdown"
    required = {line for line in found.get_all("Requires-Dist") if "extra ==" not in line}
    assert required == set(project["dependencies"])


def test_the_wheel_brings_its_licence_and_its_command(wheel):
    assert "Apache License" in metadata(wheel, "licenses/LICENSE")
    assert "dpaudit = dpaudit.cli:main" in metadata(wheel, "entry_points.txt")


def test_the_package_typed_marker_and_links_are_as_the_layout_says():
    for room in ROOMS:
        assert (ROOT / "dpaudit" / room).is_symlink()
        assert (ROOT / "dpaudit" / room).resolve() == ROOT / room
