"""Small trained additions to a model whose own weights stay as they are: LoRA, prompt tuning, P-tuning, prefix tuning."""
