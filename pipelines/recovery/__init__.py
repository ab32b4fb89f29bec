"""How much of a planted world's truth the language stages recover, beside baselines that read no language."""
