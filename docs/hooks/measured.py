"""A hook of MkDocs: files outside of `docs/` that pages link to are part of the site, and measured tables."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

OUTSIDE = re.compile(r"\]\(\.\./([\w./-]+)")
RESULTS = "bench/results"


def on_files(files: Files, *, config: Any) -> Files:
    """Add the files outside of `docs/` that a page links to, and all measured tables."""
    root, pages = Path(config["config_file_path"]).parent, Path(config["docs_dir"]).glob("*.md")
    linked = {path for page in pages for path in OUTSIDE.findall(page.read_text(encoding="utf-8"))}
    linked |= {str(path.relative_to(root)) for path in (root / RESULTS).glob("*.md")}
    for name in sorted(linked):
        # A link to what is not there stays as it is, and the strict build says so.
        if (root / name).is_file() and files.get_file_from_path(name) is None:
            added = File.generated(config, name, abs_src_path=str(root / name))
            added.inclusion = added.inclusion.NOT_IN_NAV
            files.append(added)
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Follow links out of `docs/`, which are those of the repository."""
    if page.file.src_uri.startswith(RESULTS):
        return markdown.replace("../../docs/", "../../")
    return OUTSIDE.sub(r"](\1", markdown)
