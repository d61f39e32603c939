"""Feedback: the store of what people and labelers said, and of the models that came of it; rows are only appended."""
