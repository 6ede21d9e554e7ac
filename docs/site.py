"""Builds the documentation site: `make docs-site`. A broken link is an error. The build uses no network.

The pages of the site are docs/*.md and a few other files of the repository (`OTHER_FILES`). Links between
files of the repository become links between pages, or links to the repository where a file has no page."""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "docs" / "zensical.toml"
SITE = ROOT / ".site"
REPOSITORY = "https://github.com/imgsearch/imgsearch"
OTHER_FILES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "charts/imgsearch/README.md": "chart.md",
    "demo/model/README.md": "demo-model.md",
    "sky/README.md": "skypilot.md",
}
"""Files outside docs/ that have a page, with the page's name."""
LINK = re.compile(r"(\]\()([^)\s]+)(\))")


def page_names() -> dict[str, str]:
    """The files of the site: from their name in the repository to their name in the site."""
    files = [file for pattern in ("*.md", "*.svg", "*.jpg") for file in (ROOT / "docs").rglob(pattern)]
    names = {file.relative_to(ROOT).as_posix(): file.relative_to(ROOT / "docs").as_posix() for file in sorted(files)}
    return names | OTHER_FILES


def site_text(text: str, file: str, names: dict[str, str]) -> str:
    """The text of a file, with the links changed for the site."""

    def site_link(match: re.Match[str]) -> str:
        path, _, anchor = match[2].partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
        if target in names:
            link = posixpath.relpath(names[target], posixpath.dirname(names[file]) or ".")
        elif (ROOT / target).exists():
            link = f"{REPOSITORY}/blob/main/{target}"
        else:
            link = path
        return f"{match[1]}{link}{'#' * bool(anchor)}{anchor}{match[3]}"

    return LINK.sub(site_link, text)


def prepare(folder: Path) -> None:
    """Writes the pages and the configuration into a folder."""
    names = page_names()
    for file, name in names.items():
        target = folder / "pages" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".md":
            target.write_text(site_text((ROOT / file).read_text(), file, names))
        else:
            shutil.copy(ROOT / file, target)
    shutil.copy(CONFIG, folder)


def render(folder: Path) -> Path:
    """Builds the site in a prepared folder. Raises CalledProcessError for broken links, which Zensical prints."""
    zensical = Path(sys.executable).with_name("zensical")
    subprocess.run([zensical, "build", "--strict", "--clean"], cwd=folder, check=True)
    return folder / "site"


def main() -> int:
    shutil.rmtree(SITE, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="imgsearch-docs-") as name:
        folder = Path(name)
        prepare(folder)
        try:
            shutil.copytree(render(folder), SITE)
        except subprocess.CalledProcessError as error:
            return error.returncode
    print(f"The site is in {SITE}. Open {SITE / 'index.html'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
