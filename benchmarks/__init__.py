"""Measurements, side by side in one run; no time is ever a test."""
