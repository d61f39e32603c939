"""Training: one readable loop a stage (pretrain, supervise, reward, ppo) and the few pieces they share."""
