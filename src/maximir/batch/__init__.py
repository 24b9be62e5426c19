"""Many images: planned, restored one after the other, and resumed, wherever they lie."""
