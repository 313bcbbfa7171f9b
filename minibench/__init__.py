"""The mini benchmark: trains all methods of the repository on the mini data set, on CPUs, and compares them.

Read the modules in this order: ``methods`` finds the methods (``Method``). ``settings`` holds the data and the length
of the trainings. ``plan`` makes runs with hashes (``Run``, in ``runs``) and commands (``Step``, in ``steps``) of both.
``scheduler`` runs the steps in parallel. ``results`` collects the metrics, ``bench`` reads them, ``report`` shows them.
``tuning`` and ``quickstart`` use the same parts; ``__main__`` is the command. Each step is an ordinary command of the
repository that you can repeat by hand.
"""
