"""Which architecture on which accelerator is worth it?"""
