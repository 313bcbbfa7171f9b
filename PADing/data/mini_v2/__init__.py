"""The mini data, version 2: frozen images, folds and class vectors, the same on every machine; docs/minibench_v2.md."""
