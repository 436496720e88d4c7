"""Tiers, attempts, verdicts and money: the chain that answers a request, and nothing above it."""
