"""Representations: hidden states and linear probes."""
