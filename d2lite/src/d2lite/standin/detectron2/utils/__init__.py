"""Small tools: registries, paths, processes, logging, events, drawing. Import the submodules."""
