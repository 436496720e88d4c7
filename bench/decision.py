"""How long a decision takes: features, model and policy on a 1,000-character prompt, in one process.

    python bench/decision.py [--models DIR] [--repeat 5000]

Without a registry of models a small one is trained first on simulated outcomes.
"""
