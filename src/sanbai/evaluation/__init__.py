"""What the models can do, in numbers with intervals: answers, language, preferences, the tax, and the report."""
