"""Simulations of whole worlds, by seed: no promise breaks in any, and planted faults are seen."""
