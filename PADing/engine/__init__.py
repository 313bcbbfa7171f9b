"""The shared trainer, its training recipes, the command line, and the conversion between PADing's stages."""
