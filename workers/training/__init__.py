"""How is this model built, adapted and trained?"""

import logging

# peft imports bitsandbytes wherever it is installed, and that says on each CPU which kernels of the hub it did without,
# and at each product of matrices which types it cast. Its errors are still shown.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
