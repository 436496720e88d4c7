"""The data team's part: outcomes → dataset → fit → evaluate → gate → publish → report.

It imports `router.features` and `router.model`, so that training and serving share one feature
function and one file format, and `fallback` for its values; nothing imports it.
"""
