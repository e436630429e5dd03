"""Training methods, one file each: a ``Config``, ``inputs``, ``check`` and ``run(context)``."""
