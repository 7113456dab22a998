"""modelaudit: audit an image classifier for backdoors before anyone relies on it."""

__version__ = "0.1.0"
