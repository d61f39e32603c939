"""The laboratory: published phenomena in runs of minutes, three seeds each, with controls that must not show them."""
