"""The mini benchmark: every method of the repository, trained and compared on the mini data set within hours, on CPUs.

``methods`` finds what there is to compare, ``settings`` says on what and how long, ``plan`` turns both into commands
with hashes, ``scheduler`` runs them side by side, ``results`` collects the figures, ``report`` shows them. The commands
themselves are the repository's ordinary ones, so each can be repeated by hand.
"""
