"""Objects in object stores as files: which may be used, read once into a copy, written whole or not at all."""
