"""One image, or many, through a network."""
