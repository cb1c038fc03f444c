"""Slow and obvious models of what native/ does fast.

Written from the RFCs, with Python's big integers and copies of byte strings; never
optimised, never imported by the product. A test runs oracle and C core on the same
bytes and wants the same verdict and the same bytes back.
"""
