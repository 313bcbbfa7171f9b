"""Data, independent of models: split files, data set registration, loaders, mappers, class embeddings."""
