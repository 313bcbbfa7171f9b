"""Data: split files, data set registration, loaders, mappers, class embeddings. Knows no model."""
