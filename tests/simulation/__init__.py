"""A deterministic simulation of the whole service: one seed is one history, to the byte.

`python -m tests.simulation --seeds 300` runs many and names the seeds that break a law. Real are the
servicer, validation, admission, replays, features, policy, chain, resilience, checks, recorder and the codec of
outcomes; simulated are time, randomness, the provider, the store's disk, the callers, and the operator who
kills, restarts, stops, reloads and swaps models.
"""
