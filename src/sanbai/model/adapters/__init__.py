"""Small trained additions to a model that stays as it is: LoRA, prompt tuning, P-tuning, prefix tuning."""
