"""Settings of the documentation site: ``make docs`` builds it, ``make linkcheck`` tries the links to other sites."""

project = "Zero-shot segmentation"
author = "The PADing framework's authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]

# ---- pages: Markdown as GitHub shows it, and notebooks with the outputs that are stored in them
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"

# ---- API pages
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 130
smartquotes = False  # docstrings quote values
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# ---- the look
html_theme = "furo"
html_title = "Zero-shot segmentation"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_show_copyright = False
copybutton_exclude = ".linenos, .gp, .go"

linkcheck_timeout = 20
linkcheck_retries = 2
