"""Sanbai: a ChatGPT that you own end to end."""
