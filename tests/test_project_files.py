"""Files about the project agree with the project: versions, names of files, pages of the site, remedies of errors."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from public_names import listed_problems, problems

ROOT = Path(__file__).resolve().parents[1]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = DECLARED["project"]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_pre_commit_runs_the_locked_ruff():
    [locked] = re.findall(r"^ruff==(\S+)$", text("requirements.lock"), re.MULTILINE)
    assert f"rev: v{locked}\n" in text(".pre-commit-config.yaml")


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-lowest.lock"])
def test_the_locks_have_what_the_project_asks_for(lock):
    locked = {
        canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text(lock), re.M)
    }
    extras = [one for name, those in PROJECT["optional-dependencies"].items() if name != "vision" for one in those]
    wanted = [Requirement(one) for one in [*PROJECT["dependencies"], *extras, *DECLARED["dependency-groups"]["test"]]]
    wrong = [
        str(one) for one in wanted
        if one.name != "arm-lens" and not one.specifier.contains(locked.get(canonicalize_name(one.name), "0"))
    ]  # fmt: skip
    assert len(wanted) > 40 and wrong == []


def test_the_lowest_versions_are_those_that_are_declared():
    """A version is higher only where somebody else asks for the package too."""
    found = re.findall(r"^([\w.-]+)==(\S+)\n((?: +#.*\n)*)", text("requirements-lowest.lock"), re.M)
    locked = {name: (version, set(re.findall(r"#\s+(?:via )?([\w-]+)", parents))) for name, version, parents in found}
    declared = {one.name: min(s.version for s in one.specifier) for one in map(Requirement, PROJECT["dependencies"])}
    higher = [
        name
        for name, version in declared.items()
        if Version(locked[name][0]).release[:2] != Version(version).release[:2]
    ]
    assert len(higher) < len(declared) / 2
    assert [name for name in higher if not locked[name][1] - {"arm-lens", "via"} and name != "torch"] == []


def test_the_citation_and_the_change_log_know_the_version():
    assert f"\nversion: {PROJECT['version']}\n" in text("CITATION.cff")
    assert re.search(rf"^## (Unreleased|\[?{re.escape(PROJECT['version'])})", text("CHANGELOG.md"), re.MULTILINE)


def test_contributors_are_sent_to_files_that_exist():
    named = re.findall(r"`((?:src|tests|docs|scripts)/[\w./-]+)`", text("CONTRIBUTING.md"))
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_links_lead_to_files_of_a_checkout():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose) if not re.match(r"\w+:|#", link)]
        assert [link for link in links if not (page.parent / link.partition("#")[0]).exists()] == [], page.name


def test_every_exception_and_warning_has_a_cause_and_a_remedy():
    assert len(problems()) > 40
    assert all(cause.endswith((".", "``")) for _, cause in problems().values())
    page = listed_problems()  # which refuses a remedy without a class, and a class without a remedy
    assert all(f"### {name}\n" in page for name in problems())


def test_every_page_is_in_the_navigation_of_the_site():
    navigation = text("mkdocs.yml").partition("\nnav:\n")[2]
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages == set(re.findall(r"[\w/]+\.md", navigation))
