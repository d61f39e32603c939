"""Text: byte-level BPE, reserved role ids that text can never produce, the chat template, incremental decoding."""
