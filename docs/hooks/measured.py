"""A hook of MkDocs: tables that `bench/` measured are pages of the site, at the links that the docs have."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

RESULTS = "bench/results"


def on_files(files: Files, *, config: Any) -> Files:
    """Add the measured tables."""
    root = Path(config["config_file_path"]).parent
    for path in sorted((root / RESULTS).glob("*.md")):
        page = File.generated(config, f"{RESULTS}/{path.name}", abs_src_path=str(path))
        page.inclusion = page.inclusion.NOT_IN_NAV
        files.append(page)
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Follow links out of `docs/`, which are those of the repository."""
    if page.file.src_uri.startswith(RESULTS):
        return markdown.replace("../../docs/", "../../")
    return markdown.replace("../bench/", "bench/")
