"""A hook of MkDocs that adds README.md as the start page and CHANGELOG.md as a page.

Links that lead out of docs/ lead to the repository on the site. A link to a missing file is a warning, which
fails `mkdocs build --strict`.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
}  # page of the site: file in the repository
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|<)([^)#\s]+)(#[^)\s]*)?(?=\))")
log = logging.getLogger("mkdocs.hooks.site")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    for name, source in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    source = PAGES.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    pages = {original: f"docs/{name}" for name, original in PAGES.items()}
    site_folder = f"docs/{PurePosixPath(page.file.src_uri).parent}"

    def link(match: re.Match[str]) -> str:
        target = os.path.normpath(Path(source).parent / match[1])
        if not (ROOT / target).exists():
            log.warning("%s: links to %s, which does not exist", source, match[1])
        target, anchor = pages.get(target, target), match[2] or ""
        if target.startswith("docs/") and Path(target).suffix:
            return os.path.relpath(target, site_folder) + anchor
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        return f"{config.repo_url}/{kind}/main/{target}{anchor}"

    return LINK.sub(link, markdown)
