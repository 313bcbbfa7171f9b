"""The emoji track of the mini data: scenes of emoji that have names, and so word vectors, of COCO's classes."""
