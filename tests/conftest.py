"""What all tests share. Examples have no deadline: on a busy machine one may wait for the processor, not for our code."""

from hypothesis import settings

settings.register_profile("wattledger", deadline=None)
settings.load_profile("wattledger")
