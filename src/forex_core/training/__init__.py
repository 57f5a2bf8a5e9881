"""Training of the neural member: pretraining from nothing, fine-tuning, and what a run leaves behind.

Needs the extra `train`. A forecast needs none of it: what it loads is in `forex_core.models`.
"""
