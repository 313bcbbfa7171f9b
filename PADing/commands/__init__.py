"""Command lines whose work needs PyTorch: they read the arguments first and import the rest when they start.

So ``--help`` and the message for a wrong flag come at once. Other commands do the same in their own module.
"""
