"""Ray jobs: glue between the engine, dataeng and training."""
