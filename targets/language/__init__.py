"""Language models of characters: generated texts, training, and what is measured of a finished model."""
