"""Libraries that decode and encode, and for each format what they leave out of it."""
