"""Mechanisms of other people's libraries, ready to be audited; each library is an optional extra.

Every target states what its library promises: the claim, the neighbours that it holds for, and the data that
the library accepts. Where a library leaves one of these open, the target says which reading it took and why.
"""
