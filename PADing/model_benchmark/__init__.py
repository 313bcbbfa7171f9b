"""``tools/benchmark.py model``: times inference and training of the full model beside other programs."""
