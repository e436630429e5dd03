"""What happens to models: PyTorch only, no pyspark and no ray."""

import os

# Large tensors in main memory lie on huge pages where the kernel gives them on request (`madvise`): else a tenth of a
# training step on CPUs is page faults. torch looks at this once, at its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
