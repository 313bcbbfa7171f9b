"""The report of a benchmark: a self-contained web page, a Markdown page with images, and the metrics as JSON.

``write`` combines the sections. ``results`` and ``reading`` make theirs from the metrics; ``curves``, ``images`` (with
``predictions``) and ``embeddings`` from the runs' files. ``charts`` draws, and ``pages`` turns the ``document`` into
HTML and Markdown.
"""
