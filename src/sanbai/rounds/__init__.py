"""The round: snapshot, reward model, policy, evaluation, gate, promotion; and what joins the floors below into it."""
