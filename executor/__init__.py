"""The executor obeys a plan with torch.distributed.

torch's C++ warnings come with the stack of the library that met them; what goes wrong between ranks
is said once, by the rank. The level is read when torch is imported, so it is set before.
"""

import os

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
