"""Sphinx's configuration: `make docs` builds the pages of the repository into build/site.

The source folder is the repository itself, so that a link means the same here, in an editor and on a forge.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "src")]

from rankwise.version import __version__  # noqa: E402

project = "Rankwise"
release = __version__
author = "the authors of Rankwise"
copyright = f"{author}, Apache-2.0"  # Sphinx's own name for it

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "outside",
    "generated",
]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "examples/**.md", "benchmarks/**.md"]
# Sphinx walks what it is not told to leave out, virtual environments included.
exclude_patterns = [".*", "build", "dist", "runs", "launch", "src", "tests", "deploy", "examples/rankwise-notebook"]

myst_enable_extensions = ["colon_fence", "attrs_inline"]
myst_heading_anchors = 4
# Generated pages of benchmarks begin tables below headings of another level.
suppress_warnings = ["myst.header"]
highlight_language = "text"
pygments_style = "tango"

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
toc_object_entries = False  # the page's own headings name them already

html_theme = "pydata_sphinx_theme"
html_title = "Rankwise"
html_static_path = ["static"]
html_css_files = ["rankwise.css"]
html_sidebars = {"docs/first-hour": []}  # the one section that is a single page
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "Rankwise"},
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "tango",
    "pygments_dark_style": "github-dark",
}
html_context = {"default_mode": "auto"}
