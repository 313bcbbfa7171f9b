"""The mini benchmark: every method of the repository, trained and compared on the mini data set within hours, on CPUs.

It reads in this order: ``methods`` finds what there is to compare (``Method``), ``settings`` says on what and how long,
``plan`` turns both into runs with hashes (``Run``, in ``runs``) and commands (``Step``, in ``steps``), ``scheduler``
runs them side by side, ``results`` collects the metrics, ``bench`` reads them back, ``report`` shows them. ``tuning``
and ``quickstart`` are two ways to use the same parts; ``__main__`` is the command. The steps are the repository's
ordinary commands, so each can be repeated by hand.
"""
