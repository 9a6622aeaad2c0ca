"""Runs over recordings and data sets, their metrics and reports."""
