"""The rules of the house that no linter knows."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent
PACKAGES = ("dataeng", "training", "spark_jobs", "ray_jobs")


def tracked(*endings: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    return [REPO / line for line in listed.stdout.splitlines() if line.endswith(endings) and (REPO / line).exists()]


@pytest.mark.parametrize("folder", ["spark_jobs", "ray_jobs"])
def test_no_job_is_named_like_a_standard_module(folder):
    """A script's folder comes first on the path: a tokenize.py there would break `import torch`."""
    names = {path.stem for path in (REPO / folder).glob("*.py")} - {"__init__"}
    assert names
    assert not names & sys.stdlib_module_names


def test_files_are_short():
    long = {str(p.relative_to(REPO)): n for p in tracked(".py") if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def test_functions_are_short():
    long = []
    for path in tracked(".py"):
        if path.relative_to(REPO).parts[0] not in PACKAGES:
            continue
        functions = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))
        long += [f"{path.relative_to(REPO)}: {f.name}" for f in functions if (f.end_lineno or 0) - f.lineno >= 60]
    assert not long


def test_jobs_are_glue():
    jobs = [p for folder in ("spark_jobs", "ray_jobs") for p in (REPO / folder).glob("*.py")]
    assert jobs
    with_entry = [p for p in jobs if "__main__" in p.read_text()]
    assert not {p.name: n for p in with_entry if (n := len(p.read_text().splitlines())) > 110}


def test_no_address_of_an_index():
    """Locks and build files carry hashes, never the place to fetch from."""
    hosts = re.compile(r"py" + r"pi\.org|pythonhosted|download\.pytorch|--index-url|--extra-index|maven\.org|npmjs")
    found = [
        p.name for p in tracked() if p.suffix not in {".ftz", ".png"} and hosts.search(p.read_text(errors="replace"))
    ]
    assert not found


def test_the_overwriting_package_stays_out_of_the_lock():
    """fasttext-predict would take train_supervised away from the module fasttext."""
    lines = (REPO / "requirements.lock").read_text().splitlines()
    found = [line for line in lines if re.match(r"fasttext-predict==", line)]
    assert all("sys_platform == 'never'" in line for line in found)
    import fasttext

    assert callable(fasttext.train_supervised)
