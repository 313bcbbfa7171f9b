"""The mini benchmark, version 2: folds of unseen classes on one warm start (docs/minibench_v2.md)."""
