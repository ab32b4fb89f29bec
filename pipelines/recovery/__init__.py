"""How much of a planted world's truth the language stages recover, compared with baselines that ignore language."""
