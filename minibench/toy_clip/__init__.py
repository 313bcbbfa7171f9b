"""Encoders of images and texts in open_clip's format, trained in minutes on the mini data set's pictures."""
