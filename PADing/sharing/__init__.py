"""Models to share: a folder with weights, config, classes and class embeddings, here or on the Hugging Face Hub.

``export`` makes such a folder from a training, ``reading`` makes a config of it, ``hub`` moves it over the network.
"""
