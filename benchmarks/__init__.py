"""Ratios against a peer or a physical limit, in one run on one machine; never a timed test."""
