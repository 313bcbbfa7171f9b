"""The report of a benchmark: one self-contained web page, the same as Markdown with images, and the metrics as JSON.

``write`` puts it together of sections: ``results`` and ``reading`` from the numbers, ``curves``,
``images`` (of ``predictions``) and ``embeddings`` from the runs' files. ``charts`` draws; ``pages`` makes HTML and
Markdown of the ``document``.
"""
