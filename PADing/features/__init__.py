"""Feature folders: what a frozen segmenter makes of a data set, for second stages that train and evaluate without it.

``docs/feature_track.md`` describes the format. ``header`` and ``shards`` hold it; ``folder`` reads it; ``writing``
makes it with a model; ``training`` answers a second stage's calls of its segmenter from it.
"""
