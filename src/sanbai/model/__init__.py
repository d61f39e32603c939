"""The one Transformer, its heads, its cache, its presets, and the way in and out of Hugging Face layout."""
