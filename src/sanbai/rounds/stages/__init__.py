"""The stages of a round, by what they have in common; `rounds/pipeline.py` joins them."""
