"""Builds the site of the documents, with warnings as errors, and checks its links.

    uv run --all-groups python docs/build_site.py         # into build/site/html
    uv run --all-groups python docs/build_site.py --open  # and serves it at http://127.0.0.1:8000

The pages of this folder, the plugins' READMEs and some files of the root are copied to
build/site/pages, with links changed to where the pages stand there; links to files that are no page
become plain text. Further pages are made from the code: docs/site_pages.py. `NAVIGATION` orders
all by what a reader wants: to learn, to do, to understand, to look up.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from site_links import dead_links
from site_pages import DOORS, commands_page, door_page, settings_of

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?P<all>!?\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?\))")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
SETTINGS = {
    "site_name": "reidcore",
    "site_description": "A plugin framework for object re-identification",
    "docs_dir": "pages",
    "site_dir": "html",
    "use_directory_urls": False,
}
REST = """
[project.theme]
# Nothing is asked of other servers, fonts neither.
font = false
features = [
    "content.code.copy", "navigation.footer", "navigation.indexes", "navigation.tabs",
    "navigation.top", "search.highlight", "toc.follow",
]

[[project.theme.palette]]
media = "(prefers-color-scheme: light)"
scheme = "default"
toggle = { icon = "lucide/sun", name = "Dark colours" }

[[project.theme.palette]]
media = "(prefers-color-scheme: dark)"
scheme = "slate"
toggle = { icon = "lucide/moon", name = "Light colours" }

[project.markdown_extensions.attr_list]
[project.markdown_extensions.md_in_html]
[project.markdown_extensions.tables]
[project.markdown_extensions.toc]
permalink = true
slugify = { object = "pymdownx.slugs.slugify", kwds = { case = "lower" } }
[project.markdown_extensions.pymdownx.highlight]
[project.markdown_extensions.pymdownx.superfences]

[project.plugins.mkdocstrings.handlers.python]
paths = [ROOT]

[project.plugins.mkdocstrings.handlers.python.options]
docstring_style = "google"
# Tables are too wide for narrow screens.
docstring_section_style = "list"
extensions = ["site_docstrings"]
heading_level = 2
show_root_heading = true
show_root_full_path = false
show_source = false
separate_signature = true
show_signature_annotations = true
members_order = "source"
# What attrs makes has no signature that is read without running it.
docstring_options = { warn_unknown_params = false, warn_missing_types = false }
"""


def navigation() -> list[object]:
    """Return the pages by what a reader wants, as Diataxis divides them."""
    plugins = sorted(path.parent.name for path in ROOT.glob("plugins/*/README.md"))
    return [
        {"Home": "index.md"},
        {
            "Learn": [
                "own-pictures.md",
                "writing-a-plugin.md",
                "trained-matchers.md",
            ]
        },
        {
            "Do": [
                "data.md",
                "reranking.md",
                "explain.md",
                "report.md",
                "gallery.md",
                "gallery-large.md",
                "service.md",
                "export.md",
                "distillation.md",
                "hooks.md",
                "what-parts-see.md",
            ]
        },
        {
            "Understand": [
                "design.md",
                "claims.md",
                "evaluation.md",
                "compositions.md",
                "performance.md",
            ]
        },
        {
            "Look up": [
                "run-files.md",
                "contracts.md",
                {"Commands": "reference/commands.md"},
                {"Python": [{door: f"reference/{door}.md"} for door in DOORS]},
                {"Changes": "changelog.md"},
                "licences.md",
            ]
        },
        {"Plugins": [{plugin_title(name): f"plugins/{name}.md"} for name in plugins]},
        {"Pictures of results": "pictures.md"},
        {
            "Project": [
                {"Contributing": "contributing.md"},
                {"Security": "security.md"},
                {"Conduct": "code-of-conduct.md"},
            ]
        },
    ]


def plugin_title(folder: str) -> str:
    """Return the name of the distribution in a folder of plugins/."""
    table = tomllib.loads((ROOT / "plugins" / folder / "pyproject.toml").read_text("utf-8"))
    return str(table["project"]["name"])


def plugin_name(folder: str) -> str:
    """Return the name under which the plugin of a folder registers, "" where it does not."""
    table = tomllib.loads((ROOT / "plugins" / folder / "pyproject.toml").read_text("utf-8"))
    points = table["project"].get("entry-points", {}).get("reidcore.plugins.v1", {})
    return next(iter(points), "")


def sources() -> dict[Path, str]:
    """Return where every written page stands in the site, by its file."""
    found = {path: path.name for path in sorted((ROOT / "docs").glob("*.md"))}
    for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY", "CODE_OF_CONDUCT"):
        title = "index" if name == "README" else name.lower().replace("_", "-")
        found[ROOT / f"{name}.md"] = f"{title}.md"
    for path in sorted(ROOT.glob("plugins/*/README.md")):
        found[path] = f"plugins/{path.parent.name}.md"
    return found


def moved(text: str, file: Path, pages: dict[Path, str]) -> str:
    """Return a page with its links changed to where pages and pictures stand in the site.

    Raises ValueError for a link to a file that is not there.
    """
    here = Path(pages[file]).parent

    def change(link: re.Match[str]) -> str:
        target = link["target"]
        if not target or re.match(r"\w+:", target):
            return link["all"]
        path = (file.parent / target).resolve()
        if not path.exists():
            raise ValueError(f"{file.relative_to(ROOT)}: {link['all']} leads to no file")
        to = pages.get(path) or picture(path)
        if not to:
            return link["text"]
        mark = "!" if link["all"].startswith("!") else ""
        return f"{mark}[{link['text']}]({os.path.relpath(to, here)}{link['anchor'] or ''})"

    pieces, last = [], 0
    for fence in FENCE.finditer(text):
        pieces += [LINK.sub(change, text[last : fence.start()]), fence[0]]
        last = fence.end()
    return "".join([*pieces, LINK.sub(change, text[last:])])


def picture(path: Path) -> str:
    """Return where a picture of docs/ stands in the site, "" for any other file."""
    folder = ROOT / "docs" / "pictures"
    return f"pictures/{path.name}" if path.is_relative_to(folder) and path.is_file() else ""


def assemble(folder: Path) -> None:
    """Write all pages and the configuration into a folder, in place of an older site.

    Raises ValueError where the folder holds anything else, and for dead links.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "zensical.toml").is_file():
        raise ValueError(f"{folder} holds something else than a site; name a new or empty folder")
    shutil.rmtree(folder, ignore_errors=True)
    pages = sources()
    written = {to: moved(file.read_text("utf-8"), file, pages) for file, to in pages.items()}
    for file, to in pages.items():
        if file.parent.parent.name == "plugins" and plugin_name(file.parent.name):
            written[to] += settings_of(plugin_name(file.parent.name))
    written |= {f"reference/{door}.md": door_page(door) for door in DOORS}
    written["reference/commands.md"] = commands_page()
    for to, text in written.items():
        path = folder / "pages" / to
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "pictures", folder / "pages" / "pictures")
    lines = [f"{key} = {json.dumps(value)}" for key, value in SETTINGS.items()]
    rest = REST.replace("[ROOT]", json.dumps([str(ROOT)]))
    nav = f"nav = {toml(navigation())}"
    (folder / "zensical.toml").write_text("\n".join(["[project]", *lines, nav, rest]), "utf-8")


def toml(value: object) -> str:
    """Return lists, tables and texts as TOML in a line."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {toml(one)}" for key, one in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value)


def build(folder: Path) -> list[str]:
    """Assemble and build the site in a folder; return what is wrong with it."""
    assemble(folder)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(ROOT / "docs")},
        capture_output=True,
        text=True,
    )
    printed = (done.stdout + done.stderr).strip()
    # What reads docstrings warns in lines of its own, at which zensical does not stop.
    if done.returncode or re.search(r"^(Warning|griffe|mkdocs\w*):", printed, re.MULTILINE):
        return [printed]
    return dead_links(folder / "html")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "build" / "site")
    parser.add_argument("--open", action="store_true", help="serve the site when it is built")
    options = parser.parse_args()
    try:
        wrong = build(options.output.resolve())
    except ValueError as error:
        wrong = [str(error)]
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    html = options.output.resolve() / "html"
    print(f"{len(list(html.rglob('*.html')))} pages in {html}")
    if options.open:
        serve = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(html))
        print("http://127.0.0.1:8000")
        http.server.ThreadingHTTPServer(("127.0.0.1", 8000), serve).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
