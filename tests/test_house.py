"""The house's rules that a linter does not know: how modules open, what packages export, what no file may name."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
MODULES = sorted(SRC.rglob("*.py"))
LINES_MAX = 400
# Longer on purpose, and why.
LONG: dict[str, str] = {}


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


def all_of(path: Path) -> list[str] | None:
    for node in ast.parse(path.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, ast.Assign)
            value: list[str] = ast.literal_eval(node.value)
            return value
    return None


def own_names(path: Path) -> set[str]:
    """Return what a module exports and defines; what it only passes on is another module's."""
    body = ast.parse(path.read_text()).body
    passed_on = {
        alias.asname or alias.name for node in body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    return set(all_of(path) or ()) - passed_on


def test_every_module_opens_with_what_it_is() -> None:
    silent = [name(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_every_module_that_defines_something_postpones_annotations() -> None:
    without = [
        name(path)
        for path in MODULES
        if any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.parse(path.read_text()).body)
        and "from __future__ import annotations" not in path.read_text()
    ]
    assert without == []


def test_modules_stay_short() -> None:
    long = {name(path): lines for path in MODULES if (lines := len(path.read_text().splitlines())) > LINES_MAX}
    assert {path: lines for path, lines in long.items() if path not in LONG} == {}
    assert LONG.keys() <= long.keys(), "no longer long: take it off the list"


def test_all_names_what_exists() -> None:
    for path in MODULES:
        exported = all_of(path)
        if exported is None or "management" in path.parts:
            continue
        module = importlib.import_module(module_name(path))
        missing = [each for each in exported if not hasattr(module, each)]
        assert missing == [], f"{name(path)}: __all__ names what is not there: {missing}"


def test_a_package_exports_exactly_what_its_own_modules_do() -> None:
    for path in MODULES:
        exported = all_of(path) if path.name == "__init__.py" else None
        # The package antiphon itself opens a few of its doors' names, not all of them.
        if not exported or path.parent == SRC / "antiphon":
            continue
        body = ast.parse(path.read_text()).body
        if any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in body):
            continue  # it does something of its own
        modules = [
            path.parent / f"{node.module}.py"
            for node in body
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module
        ]
        union = {each for module in modules if module.is_file() for each in own_names(module)}
        assert not modules or set(exported) == union, name(path)


def test_no_lock_names_a_host() -> None:
    locks = [path for path in tracked() if path.suffix == ".lock" or path.name == "package-lock.json"]
    assert locks
    named = [f"{name(path)}: {found}" for path in locks for found in re.findall(r"[a-z+]+://\S+", text_of(path))]
    assert named == []


def test_no_file_names_a_place_of_one_machine() -> None:
    # Where this checkout stands and where pip looks are asked, so that this file names neither.
    places = [re.escape(str(ROOT)), r"/(?:home|Users)/\w+/"]
    index = re.sub(r"^\w+://([^/@]*@)?|[/:].*", "", os.environ.get("PIP_INDEX_URL", ""))
    if index and index not in {"pypi.org", "localhost"}:
        places.append(re.escape(index))
    pattern = re.compile("|".join(rf"(?<![\w.]){place}" for place in places))
    found = [f"{name(path)}: {hit.group()}" for path in tracked() if (hit := pattern.search(text_of(path)))]
    assert found == []


def test_the_version_stands_in_one_place_and_the_changelog_knows_it() -> None:
    import antiphon

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    assert "version" not in project
    assert f"## {antiphon.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_ignored_lint_has_its_reason() -> None:
    # In pyproject.toml each entry of a list of ignores has a comment behind it, or its neighbour on the line has.
    text = (ROOT / "pyproject.toml").read_text()
    ignores = text[text.index("\nignore = [") : text.index("[tool.ruff.lint.isort]")]
    bare = [line.strip() for line in ignores.splitlines() if re.match(r'\s+"[A-Z]+\d*"', line) and "#" not in line]
    assert bare == []


def test_every_relative_link_of_the_documents_leads_somewhere() -> None:
    broken = []
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]:
        for target in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", path.read_text()):
            file, _, anchor = target.partition("#")
            there = (path.parent / file).resolve() if file else path
            found = there.exists() and not (anchor and there.suffix == ".md" and anchor not in anchors(there))
            if not found:
                broken.append(f"{name(path)}: {target}")
    assert broken == []


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
