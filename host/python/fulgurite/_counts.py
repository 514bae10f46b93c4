"""What is counted for `fulgurite.info()`."""

copies: int = 0
"""Tensors that were copied, because no kernel can walk them as they lie."""
