"""The commands of the app ``daphne``."""
