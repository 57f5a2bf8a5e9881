"""Market data: providers, the quality gate, the bundle, snapshots."""
