"""The wheel: which files it carries, what its metadata say, and that an installed hpcfit finds what lies beside it.

The environment that it runs in takes its libraries from the one of the tests: that pip can resolve them is not seen.
"""

import email
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.command import ROOT

BUILD = "import sys\nfrom setuptools.build_meta import build_wheel\nprint(build_wheel(sys.argv[1]))"
NOT_CODE = ("*.html.j2", "*.css", "README.md")  # of the package
SHARED = ("config/*.toml", "jobs/*.j2", "jobs/*.sbatch", "jobs/*.sh", "jobs/sites/*.toml")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, built from a copy of its files, so that nothing is left behind in it."""
    pytest.importorskip("setuptools", minversion="77", reason="the first setuptools with PEP 639 licence expressions")
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("hpcfit", "config", "jobs"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, folder], cwd=folder / "source", capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Path:
    """The Python of an environment that holds the wheel, laid out as pip does it, outside of any checkout."""
    folder = tmp_path_factory.mktemp("installed")
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=300)
    found = "import json, sys, sysconfig; print(json.dumps([sysconfig.get_path('purelib'), sys.path]))"
    purelib = Path(json.loads(subprocess.check_output([python, "-c", found], text=True))[0])
    libraries = json.loads(subprocess.check_output([sys.executable, "-c", found], text=True, cwd=folder))[0]
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            inside = name.partition(".data/data/")[2]
            target = folder / inside if inside else purelib / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))
    (purelib / "libraries.pth").write_text(f"{libraries}\n")  # behind the wheel's own folder
    return python


def files(*patterns: str, below: Path = ROOT) -> set[str]:
    return {str(path.relative_to(ROOT)) for pattern in patterns for path in below.rglob(pattern)}


def test_the_wheel_carries_what_the_checkout_holds_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    about = {name for name in names if ".dist-info/" in name}
    code = files("*.py", *NOT_CODE, below=ROOT / "hpcfit")
    shared = {str(path.relative_to(ROOT)) for pattern in SHARED for path in ROOT.glob(pattern)}
    data = f"hpcfit-{version()}.data/data/share/hpcfit/"
    assert names - about == code | {data + name for name in shared}
    assert shared == {f"{path.relative_to(ROOT)}" for name in ("config", "jobs") for path in (ROOT / name).rglob("*.*")}
    for kind in ("frame_weights", "force_map"):
        assert {f"hpcfit/kinds/{kind}/README.md", f"{data}config/{kind}.toml"} <= names
    assert {"hpcfit/README.md", "hpcfit/report/page.html.j2", f"{data}jobs/job.sh.j2"} <= names


def version() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_its_metadata_carry_the_readme_and_addresses(wheel):
    with zipfile.ZipFile(wheel) as archive:
        about = email.message_from_bytes(archive.read(f"hpcfit-{version()}.dist-info/METADATA"))
    assert about["Description-Content-Type"] == "text/markdown"
    assert about.get_payload(decode=True).decode().strip() == (ROOT / "README.md").read_text().strip()
    assert all(", https://" in address for address in about.get_all("Project-URL"))


def test_an_installed_hpcfit_finds_configs_readmes_and_sites(installed, tmp_path):
    def run(*words: str) -> str:
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        command = [installed, "-m", "hpcfit", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=clean)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("init", "force-map") == (ROOT / "config/force_map.toml").read_text()
    assert run("explain", "frame-weights") == (ROOT / "hpcfit/kinds/frame_weights/README.md").read_text()
    assert "lumi-g" in run("job", "--sites")
    where = subprocess.check_output([installed, "-c", "import hpcfit; print(hpcfit.__file__)"], text=True, cwd=tmp_path,
                                    env={"PATH": os.environ["PATH"]})  # fmt: skip
    assert Path(where.strip()).is_relative_to(installed.parents[1])
