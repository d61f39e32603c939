"""How families of models are laid out in Hugging Face folders: names and settings as tables, one file a family."""
