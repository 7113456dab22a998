"""Folders in the layout of the Hugging Face hub: ``config.json`` beside the weights.

Everything is read from the folder. Code that it brings along (``auto_map``) is refused, nothing is
fetched from the network, and weights are safetensors or a pickle read weights-only.
"""
