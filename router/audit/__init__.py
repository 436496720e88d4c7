"""Audits: a small random share of accepted replies is answered again by the next tier, off the caller's path.

They say what the checks missed. Nothing here is waited for by a request: `Auditor.consider` only draws a lot and
puts the request into a bounded queue. What an audit costs is never in a request's `cost_usd`.

`auditor` (who is audited, and when) → `examination` (one audit) → `comparison` (which reply is good);
`budget` is the money of a day, `log` writes what was found.
"""
