"""Serving: the OpenAI-compatible API, the chat app, the labeler's console, the rounds page, and who may use them."""
